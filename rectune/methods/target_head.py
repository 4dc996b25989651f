"""Logits only where a label is: a prompt's positions have no loss, and on a large vocabulary their logits are most of the
memory. The loss and its gradients are those of the whole sequence."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

from rectune.decoding.body import scale_and_cap
from rectune.methods.token_tree import said_before, visible

PIECE = 2**26  # logits in one piece; the others are computed again in the backward pass


@dataclass
class TargetOutput(ModelOutput):  # type: ignore[misc]
    """What TRL's SFTTrainer and DPOTrainer read of a forward pass, each (batch, length - 1) and zero where there is no label."""

    log_probs: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    is_top1: torch.Tensor | None = None
    mean_logits: torch.Tensor | None = None
    label_mask: torch.Tensor | None = None
    aux_loss: torch.Tensor | None = None


def scores_everywhere(model: Any) -> bool:
    """Whether TRL's fused head scores every position on this model's device; with Triton (CUDA, ROCm, XPU) it does not."""
    return str(model.device.type) not in ("cuda", "xpu")


def put_target_head(model: Any) -> None:
    """Make `model(..., labels=labels, fused_lm_head=True)` score the labelled positions only; other calls stay as they are.

    For a model whose forward TRL has patched already, with or without a PEFT adapter. Models that ask for router logits
    keep TRL's forward, whose loss has a second part. With `parents` and `last` a row is trees of tokens (rectune/methods/token_tree.py).
    """
    whole = model.get_base_model() if hasattr(model, "peft_config") else model
    before = whole.forward
    config = whole.config.get_text_config()

    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        parents, last = kwargs.pop("parents", None), kwargs.pop("last", None)
        if last is not None:
            _check_trees(fused_lm_head, kwargs)
            kwargs["attention_mask"] = visible(last, self.dtype)
            hidden = self.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state
            return target_output(
                said_before(hidden, parents)[:, 1:], labels[:, 1:], self.get_output_embeddings(), config
            )
        if not fused_lm_head or labels is None or kwargs.get("output_router_logits") or "shift_labels" in kwargs:
            return before(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        hidden = self.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state[:, :-1]
        return target_output(hidden, labels[:, 1:], self.get_output_embeddings(), config)

    forward.__wrapped__ = before.__func__ if isinstance(before, MethodType) else before  # type: ignore[attr-defined]
    whole.forward = MethodType(forward, whole)


def _check_trees(fused: bool, kwargs: dict[str, Any]) -> None:
    if not fused or kwargs.get("output_router_logits"):
        raise ValueError(
            "`examples: tree` and `packing` go with the loss of labelled tokens alone: not with `label_smoothing_factor`, nor with a loss of routers "
            "(`router_aux_loss_coef`). Leave one of them out."
        )


def target_output(hidden: torch.Tensor, labels: torch.Tensor, head: Any, config: Any) -> TargetOutput:
    """Score `labels` (B, T), -100 where there is none, after `hidden` (B, T, width)."""
    mask = labels != -100
    each = score(hidden[mask], labels[mask], head, config)
    # masked_scatter keeps a batch without labels connected to the model: its loss is a zero that has gradients
    scattered = [column.new_zeros(mask.shape).masked_scatter(mask, column) for column in each]
    return TargetOutput(*scattered, label_mask=mask)


def score(hidden: torch.Tensor, labels: torch.Tensor, head: Any, config: Any) -> list[torch.Tensor]:
    """Log-probability of each of `labels` (N,) after `hidden` (N, width), entropy there, whether the label is the most
    likely, and the mean logit; each (N,). Where the logits are many, they are made in pieces and again in the backward pass."""
    scale, cap = scale_and_cap(config, seq2seq=False)
    rows = max(1, PIECE // int(config.vocab_size))  # of trained rows PEFT would make a whole matrix to tell its shape
    again = len(labels) > rows and torch.is_grad_enabled()
    pieces = []
    for at in range(0, max(len(labels), 1), rows):
        given = (hidden[at : at + rows], labels[at : at + rows], head, scale, cap)
        pieces.append(checkpoint(_piece, *given, use_reentrant=False) if again else _piece(*given))
    return [torch.cat(column) for column in zip(*pieces, strict=True)]


def _piece(
    hidden: torch.Tensor, labels: torch.Tensor, head: Any, scale: float, cap: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = head(hidden).float() * scale
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    every = logits.log_softmax(-1)
    log_probs = every.gather(-1, labels[:, None])[:, 0]
    with torch.no_grad():
        entropy = -torch.linalg.vecdot(every.exp(), every)
        top = log_probs >= every.amax(-1)
        mean = logits.mean(-1)
    return log_probs, entropy, top, mean
