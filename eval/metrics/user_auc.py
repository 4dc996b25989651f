"""Per-user AUC: AUC within each user, so that knowing who is generous earns nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rectune.eval.metrics.auc import auc


def user_auc(
    scores: NDArray[np.float64], liked: NDArray[np.int64], user: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """AUC of each user's rows (NaN for a user without both answers), and each user's number of rows, users sorted.

    All arguments have shape (rows,). The usual summary (GAUC) is the mean weighted by rows over users that have one:
    Zhu et al., KDD 2017 (Optimized Cost per Click), sec. 4.
    """
    order = np.argsort(user, kind="stable")
    _, starts, sizes = np.unique(user[order], return_index=True, return_counts=True)
    values = [auc(scores[order[s : s + n]], liked[order[s : s + n]]) for s, n in zip(starts, sizes, strict=True)]
    return np.array(values), sizes.astype(np.int64)


def mean_user_auc(scores: NDArray[np.float64], liked: NDArray[np.int64], user: NDArray[np.int64]) -> float:
    """Mean of `user_auc` weighted by rows; NaN when no user has both answers."""
    values, sizes = user_auc(scores, liked, user)
    known = ~np.isnan(values)
    return float(np.average(values[known], weights=sizes[known])) if known.any() else float("nan")
