"""The prompts of a batch for an encoder-decoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from rectune.decoding.body import Body
from rectune.decoding.padding import left_pad
from rectune.decoding.prompt_tree import Prefix, PromptTree


class EncodedPrompts:
    """What `PromptTree` is for a decoder: prompts are encoded once, each beam is a decoder row of its own.

    Decoder rows hold a whole name so far, start token first; keys and values of the prompts are computed once.
    """

    def __init__(self, body: Body, prompts: Sequence[Sequence[int]], *, pad: int) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self._body = body
        ids, self._mask = left_pad([list(prompt) for prompt in prompts], pad, body.device)
        self._encoded = body.encoder(input_ids=ids, attention_mask=self._mask).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = torch.full((len(prompts), 1), body.start, device=body.device)
        self.last = self._decode(start, self._encoded, self._mask, cache)
        self._cross = [(layer.keys, layer.values) for layer in cache.cross_attention_cache.layers]
        self._path = start[:, None]  # (B, slots, depth + 1), the start token's slot first
        body.counts.prompt += sum(map(len, prompts))
        body.counts.padding += ids.numel() - sum(map(len, prompts))

    def extend(
        self, tokens: torch.Tensor, parents: torch.Tensor, depth: int, used: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `PromptTree.extend`."""
        from transformers import DynamicCache, EncoderDecoderCache

        rows, width = tokens.shape
        self._body.counts.codes += used
        self._body.counts.padding += tokens.numel() - used
        slots = self._path.shape[1]
        below = self._path.gather(1, (parents + 1)[..., None].expand(-1, -1, self._path.shape[2]))[..., :depth]
        path = torch.cat([below, tokens[..., None]], -1)  # (B, Q, depth + 1)
        cross = DynamicCache()
        for layer, (keys, values) in enumerate(self._cross):
            cross.update(keys.repeat_interleave(width, 0), values.repeat_interleave(width, 0), layer)
        hidden = self._decode(
            path.flatten(0, 1),
            self._encoded.repeat_interleave(width, 0),
            self._mask.repeat_interleave(width, 0),
            EncoderDecoderCache(DynamicCache(), cross),
        )
        old = torch.nn.functional.pad(self._path, (0, max(0, depth + 1 - self._path.shape[2])))
        self._path = torch.cat([old, torch.nn.functional.pad(path, (0, old.shape[2] - depth - 1))], 1)
        return hidden.view(rows, width, -1), torch.arange(slots - 1, slots - 1 + width, device=tokens.device).expand(
            rows, -1
        )

    def take(self, rows: torch.Tensor) -> EncodedPrompts:
        """As `PromptTree.take`."""
        part = copy.copy(self)
        part._cross = [(keys[rows], values[rows]) for keys, values in self._cross]
        for name in ("last", "_mask", "_encoded", "_path"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def _decode(self, ids: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor, cache: Any) -> torch.Tensor:
        self._body.counts.passes += 1
        out = self._body.layers(
            input_ids=ids,
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return torch.as_tensor(out[:, -1])


def start_tree(
    body: Body, prompts: Sequence[Sequence[int]], *, pad: int, prefix: Prefix | None = None
) -> PromptTree | EncodedPrompts:
    """Forward the prompts of a batch."""
    if body.encoder is not None:
        return EncodedPrompts(body, prompts, pad=pad)
    return PromptTree(body, prompts, pad=pad, prefix=prefix)
