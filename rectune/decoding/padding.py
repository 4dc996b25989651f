"""Prompts of different lengths in one tensor, and masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask (B, Q, S) of what is seen, as what `sdpa` and `eager` attention add to their scores, (B, 1, Q, S)."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def left_pad(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad prompts on the left. Returns ids and attention mask, both (rows, longest) int64."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask[i, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position of each token among the real ones, (rows, width)."""
    return (mask.cumsum(-1) - 1).clamp(min=0)
