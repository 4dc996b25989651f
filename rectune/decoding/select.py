"""The k best of many scores, equal ones in order of their place: the same on every device and in every batch."""

from __future__ import annotations

import torch

_BLOCK = 32


def top(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Places of the `k` highest scores (fewer where there are fewer), best first, ties by place.

    `scores` (rows, n) float32 without NaN; returns (rows, min(k, n)) int64.
    """
    n = scores.shape[1]
    places = torch.arange(n, device=scores.device)
    whole = n - n % _BLOCK
    if whole < 4 * _BLOCK * k:
        return _keys(scores, places).topk(min(k, n), dim=1).indices
    # The k best lie in the k blocks whose best is best: most scores are only ever compared with their neighbours.
    blocked = scores[:, :whole].view(len(scores), -1, _BLOCK)
    best = _keys(blocked.amax(2), places[: whole // _BLOCK]).topk(k, dim=1).indices
    places = torch.cat(
        [(best[..., None] * _BLOCK + places[:_BLOCK]).flatten(1), places[whole:].expand(len(scores), -1)], 1
    )
    return places.gather(1, _keys(scores.gather(1, places), places).topk(k, dim=1).indices)


def merge(
    scores: torch.Tensor, nodes: torch.Tensor, more_scores: torch.Tensor, more_nodes: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` best of two sets of scored nodes, best first, ties by node; each argument (rows, any)."""
    scores, nodes = torch.cat([scores, more_scores], 1), torch.cat([nodes, more_nodes], 1)
    order = _keys(scores, nodes).topk(min(k, nodes.shape[1]), dim=1).indices
    return scores.gather(1, order), nodes.gather(1, order)


def _keys(scores: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """One int64 for each score and place: ordered by score, and by place, smaller first, where scores are equal."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 one value
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    return (ordered << 32) | (0xFFFFFFFF - places)
