"""The prompts of a batch and what is decoded after them, every beam a token of the same sequence."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from rectune.decoding.body import Body
from rectune.decoding.padding import additive, left_pad, positions


@dataclass(frozen=True)
class Prefix:
    """Tokens that all prompts begin with, and the keys and values of each layer for them, (1, heads, tokens, width)."""

    tokens: list[int]
    cache: list[tuple[torch.Tensor, torch.Tensor]]


class PromptTree:
    """One sequence a row: the prompt, then slots of decoded tokens that see the prompt and their own ancestors.

    The cache is only appended to; nothing is reordered. `last`: hidden states after the prompts, (rows, width).
    """

    def __init__(self, body: Body, prompts: Sequence[Sequence[int]], *, pad: int, prefix: Prefix | None = None) -> None:
        from transformers import DynamicCache

        self._body = body
        self._cache = DynamicCache()  # without a config: sliding layers keep all keys, masks say what is seen
        skip = 0
        if prefix is not None:
            skip = len(prefix.tokens)
            for layer, (keys, values) in enumerate(prefix.cache):
                shape = (len(prompts), -1, -1, -1)
                self._cache.update(keys.expand(*shape), values.expand(*shape), layer)
        ids, mask = left_pad([prompt[skip:] for prompt in prompts], pad, body.device)
        mask = torch.cat([mask.new_ones(len(prompts), skip), mask], 1)
        at = positions(mask)
        hidden = body.layers(
            input_ids=ids,
            attention_mask=mask,
            position_ids=at[:, skip:],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        self.last = hidden[:, -1]
        self._length = at[:, -1] + 1  # (B,)
        self._prompt = mask.bool()  # (B, P)
        self._seen = torch.zeros((len(prompts), 0, 0), dtype=torch.bool, device=body.device)  # (B, slots, slots)
        tokens = sum(map(len, prompts)) - skip * len(prompts)
        body.counts.prompt += tokens
        body.counts.padding += ids.numel() - tokens
        body.counts.passes += 1

    def extend(
        self, tokens: torch.Tensor, parents: torch.Tensor, depth: int | torch.Tensor, used: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward tokens (B, Q), each the `depth`-th after the prompt (from 1; one number, or (B, Q)) and below the slot in
        `parents` (-1: the prompt); all but `used` are padding. Returns hidden states (B, Q, width) and slots (B, Q)."""
        rows, width = tokens.shape
        own = torch.eye(width, dtype=torch.bool, device=tokens.device).expand(rows, -1, -1)
        seen = torch.cat([self._ancestors(parents, self._seen.shape[1]), own], 2)
        return self._forward(tokens, seen, (self._length[:, None] + depth - 1).expand(-1, width), used)

    def branch(self, suffixes: Sequence[Sequence[Sequence[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Forward several continuations of each prompt at once; continuations of a row don't see each other.

        Returns, for the last token of each, hidden states (B, C, width) and slots (B, C), and their lengths (B, C); rows
        with fewer continuations repeat their last one.
        """
        width = max(sum(map(len, row)) for row in suffixes)
        count = max(map(len, suffixes))
        tokens, at, group = (torch.zeros((len(suffixes), width), dtype=torch.long) for _ in range(3))
        last, lengths = (torch.zeros((len(suffixes), count), dtype=torch.long) for _ in range(2))
        group -= torch.arange(1, width + 1)  # each padding token is alone
        for i, row in enumerate(suffixes):
            flat = [token for suffix in row for token in suffix]
            tokens[i, : len(flat)] = torch.tensor(flat)
            at[i, : len(flat)] = torch.tensor([n for suffix in row for n in range(len(suffix))])
            group[i, : len(flat)] = torch.tensor([n for n, suffix in enumerate(row) for _ in suffix])
            ends = list(accumulate(map(len, row)))
            last[i] = torch.tensor([ends[min(c, len(row) - 1)] - 1 for c in range(count)])
            lengths[i] = torch.tensor([len(row[min(c, len(row) - 1)]) for c in range(count)])
        device = self._length.device
        tokens, at, group, last, lengths = (x.to(device) for x in (tokens, at, group, last, lengths))
        before = self._seen.shape[1]
        own = (group[:, :, None] == group[:, None, :]) & torch.ones((width, width), device=device).tril().bool()
        seen = torch.cat([own.new_zeros((len(suffixes), width, before)), own], 2)
        used = sum(len(suffix) for row in suffixes for suffix in row)
        hidden, slots = self._forward(tokens, seen, self._length[:, None] + at, used)
        return hidden.gather(1, last[..., None].expand(-1, -1, hidden.shape[2])), slots.gather(1, last), lengths

    def _forward(
        self, tokens: torch.Tensor, seen: torch.Tensor, at: torch.Tensor, used: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward tokens (B, Q) at positions `at` that see the prompt and the slots (B, Q, old and new) in `seen`."""
        rows, width = tokens.shape
        slots = self._seen.shape[1]
        self._seen = torch.cat([torch.nn.functional.pad(self._seen, (0, width)), seen], 1)
        visible = torch.cat([self._prompt[:, None].expand(-1, width, -1), seen], 2)
        hidden = self._body.layers(
            input_ids=tokens,
            attention_mask=additive(visible, self.last.dtype),
            position_ids=at,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        self._body.counts.codes += used
        self._body.counts.padding += tokens.numel() - used
        self._body.counts.passes += 1
        return hidden, torch.arange(slots, slots + width, device=tokens.device).expand(rows, -1)

    def take(self, rows: torch.Tensor) -> PromptTree:
        """The same tree for some of its rows only."""
        from transformers import DynamicCache

        part = copy.copy(self)
        part._cache = DynamicCache()
        for number, layer in enumerate(self._cache.layers):
            part._cache.update(layer.keys[rows], layer.values[rows], number)
        for name in ("last", "_length", "_prompt", "_seen"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def _ancestors(self, parents: torch.Tensor, slots: int) -> torch.Tensor:
        if slots == 0:
            return torch.zeros((*parents.shape, 0), dtype=torch.bool, device=parents.device)
        seen = self._seen.gather(1, parents.clamp(min=0)[..., None].expand(-1, -1, slots))
        return seen & (parents >= 0)[..., None]


def shared_prefix(body: Body, prompts: Sequence[Sequence[int]], *, shortest: int = 8) -> Prefix | None:
    """Forward what all prompts begin with, once. None where that is less than `shortest` tokens, or for an encoder."""
    from transformers import DynamicCache

    if body.encoder is not None or len(prompts) < 2:
        return None
    ordered = sorted(map(list, prompts))
    low, high = ordered[0], ordered[-1]  # what these two share, all of them share
    same = 0
    while same < len(low) - 1 and low[same] == high[same]:
        same += 1
    same = min(same, min(map(len, prompts)) - 1)  # the last token of a prompt is forwarded with its row
    if same < shortest:
        return None
    tokens = low[:same]
    cache = DynamicCache()
    body.layers(input_ids=torch.tensor([tokens], device=body.device), past_key_values=cache, use_cache=True)
    body.counts.prompt += same
    body.counts.passes += 1
    return Prefix(tokens, [(layer.keys, layer.values) for layer in cache.layers])
