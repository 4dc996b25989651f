"""Sinkhorn's algorithm: an assignment that uses all codes equally often."""

from __future__ import annotations

import torch


@torch.no_grad()
def spread_evenly(distances: torch.Tensor, epsilon: float, *, rounds: int = 50) -> torch.Tensor:
    """The transport plan between items and codes at equal use, (items, codes), for `distances` of the same shape.

    Distances are first brought to [-1, 1], as LC-Rec does (its uniform semantic mapping, sec. 3.1.2, epsilon .003, 50
    rounds). In logarithms, where exp(-1 / epsilon) would be 0.
    """
    if not epsilon > 0:
        raise ValueError(f"`sinkhorn` must be above 0 (or 0 for no uniform mapping), got {epsilon}.")
    middle = (distances.max() + distances.min()) / 2
    plan = -(distances - middle) / ((distances.max() - middle).clamp(min=1e-9) * epsilon)
    plan = plan.double()
    for _ in range(rounds):
        plan = plan - torch.logsumexp(plan, 0, keepdim=True)
        plan = plan - torch.logsumexp(plan, 1, keepdim=True)
    return plan
