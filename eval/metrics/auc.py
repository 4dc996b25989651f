"""AUC: how often a liked row scores above a disliked one."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
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


class Auc(evaluate.Metric):  # type: ignore[misc]
    """`evaluate` wrapper: predictions are scores, references 0 or 1."""

    def _info(self) -> Any:
        kinds = {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=auc.__doc__, features=datasets.Features(kinds)
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"auc": auc(np.asarray(predictions), np.asarray(references))}
