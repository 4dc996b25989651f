"""AUC: how often a liked row scores above a disliked one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def auc(scores: NDArray[np.float64], liked: NDArray[np.int64]) -> float:
    """P(score of a liked row > score of a disliked one) + P(equal) / 2, over all pairs; NaN unless both occur.

    `scores` and `liked` (0 or 1) have shape (rows,). Source: Hanley and McNeil, Radiology 1982 (Mann-Whitney form).
    """
    positives = int((liked == 1).sum())
    negatives = len(liked) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[liked == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))
