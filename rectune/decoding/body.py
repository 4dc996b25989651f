"""A language model taken apart for search: its body without the head, its head on the rows that are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

_CHUNK = 16_384  # rows of the head in one piece of the log-sum-exp
_KNOWN_LAYERS = {"full_attention", "attention", "sliding_attention", "chunked_attention"}


@dataclass(frozen=True)
class Head:
    """The map from hidden states to logits: `weight` (vocabulary, width), then scale and soft cap."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: float
    cap: float | None

    def logits(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of `tokens` (C,) for hidden states (..., width); float32 (..., C)."""
        return self._finish(hidden, self.weight[tokens], None if self.bias is None else self.bias[tokens])

    def log_normaliser(self, hidden: torch.Tensor) -> torch.Tensor:
        """Log-sum-exp of all logits of the vocabulary, in pieces; float32 (...)."""
        pieces = []
        for start in range(0, len(self.weight), _CHUNK):
            bias = None if self.bias is None else self.bias[start : start + _CHUNK]
            pieces.append(self._finish(hidden, self.weight[start : start + _CHUNK], bias).logsumexp(-1))
        return torch.stack(pieces).logsumexp(0)

    def _finish(self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float() * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


@dataclass
class Counts:
    """What a search cost: prompt tokens and code tokens that were forwarded, padding beside them, forward passes."""

    prompt: int = 0
    codes: int = 0
    padding: int = 0
    passes: int = 0


@dataclass
class Body:
    """`layers` gives the hidden states that `head` reads; `encoder` is None for a decoder-only model; `reach` is the
    shortest window of its attention, or None."""

    layers: Any
    head: Head
    encoder: Any
    start: int
    reach: int | None
    counts: Counts = field(default_factory=Counts)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.head.weight.device


def take_apart(model: Any) -> Body:
    """Find body and head of a transformers model, its adapter left in place. Raises ValueError, saying why, when the
    model's attention or head is of a kind that the search cannot use."""
    whole = model.get_base_model() if hasattr(model, "peft_config") else model
    config = whole.config.get_text_config()
    seq2seq = bool(whole.config.is_encoder_decoder)
    if seq2seq and config.model_type not in ("t5", "mt5", "umt5"):
        raise ValueError(f"encoder-decoders of type `{config.model_type}` are not known to the search")
    attention = config._attn_implementation
    if attention not in ("sdpa", "eager"):
        raise ValueError(
            f"`{attention}` attention takes no mask of its own for each beam; load it with `model.attn_implementation: sdpa`"
        )
    if hasattr(config, "attn_config") or (hasattr(config, "alibi") and config.alibi):  # MPT, Falcon
        raise ValueError(f"`{config.model_type}` adds a bias by place in the cache")
    if hasattr(config, "attention_layers"):  # GPT-Neo
        raise ValueError(f"`{config.model_type}` adds masks of its own, by place in the cache")
    if not keeps_keys_and_values(whole):
        raise ValueError(f"`{config.model_type}` has layers that carry a state instead of keys and values")
    return Body(
        layers=whole.get_decoder(),
        head=_head_of(whole, config, seq2seq),
        encoder=whole.get_encoder() if seq2seq else None,
        start=int(config.decoder_start_token_id or 0) if seq2seq else 0,
        reach=_reach(config),
    )


def keeps_keys_and_values(model: Any) -> bool:
    """Whether every layer is attention with a cache, not one that carries a state."""
    return not model._is_stateful and _kinds(model.config.get_text_config()) <= _KNOWN_LAYERS


def _kinds(config: Any) -> set[str]:
    return set(config.layer_types or ()) if hasattr(config, "layer_types") else set()


def _head_of(whole: Any, config: Any, seq2seq: bool) -> Head:
    layer = whole.get_output_embeddings()
    if layer is None:
        raise ValueError(f"`{config.model_type}` has no output embeddings")
    if hasattr(layer, "lora_A"):
        raise ValueError("an adapter sits on its output embeddings")
    bias = layer.bias if hasattr(layer, "bias") else None
    if hasattr(layer, "token_adapter"):  # PEFT keeps trained rows of new tokens beside the matrix
        weight = layer.token_adapter.get_merged_weights(layer.token_adapter.active_adapters)
    else:
        weight = layer.weight
    scale, cap = scale_and_cap(config, seq2seq=seq2seq)
    return Head(weight.detach(), None if bias is None else bias.detach(), scale, cap)


def scale_and_cap(config: Any, *, seq2seq: bool) -> tuple[float, float | None]:
    """What a model does to the logits of its head: a factor, then a soft cap (Gemma) or None."""
    scale = 1.0
    tied = config.scale_decoder_outputs if hasattr(config, "scale_decoder_outputs") else config.tie_word_embeddings
    if seq2seq and tied:  # T5
        scale = float(config.d_model) ** -0.5
    if hasattr(config, "logit_scale") and config.logit_scale:  # Cohere
        scale *= float(config.logit_scale)
    if hasattr(config, "logits_scaling") and config.logits_scaling:  # Granite
        scale /= float(config.logits_scaling)
    cap = config.final_logit_softcapping if hasattr(config, "final_logit_softcapping") else None
    return scale, float(cap) if cap else None


def _reach(config: Any) -> int | None:
    """The shortest distance that a layer looks back, or None where all of them see everything."""
    kinds, windows = _kinds(config), []
    if hasattr(config, "sliding_window") and config.sliding_window and (not kinds or "sliding_attention" in kinds):
        windows.append(int(config.sliding_window))
    if hasattr(config, "attention_chunk_size") and config.attention_chunk_size and "chunked_attention" in kinds:
        windows.append(int(config.attention_chunk_size))
    return min(windows) if windows else None
