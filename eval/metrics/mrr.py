"""MRR@k: one over the place of the first hit."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from rectune.eval.metrics.hits import hits_of


def mrr(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """mrr_u = 1 / (1 + place of the first hit) if that place is below k, else 0; NaN where nothing is relevant.

    `hits`: (rows, places) bool, places from 0; `relevant`: (rows,). Source: Voorhees, TREC-8 question answering, 1999.
    """
    within = hits[:, :k]
    first = within.argmax(axis=1)
    value = np.where(within.any(axis=1), 1.0 / (first + 1), 0.0)
    return np.where(relevant > 0, value, np.nan)


class Mrr(evaluate.Metric):  # type: ignore[misc]
    """`evaluate` wrapper: predictions are ranked item ids, references the relevant ids; mean over rows."""

    def _info(self) -> Any:
        ids = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=mrr.__doc__,
            features=datasets.Features({"predictions": ids, "references": ids}),
        )  # fmt: skip

    def _compute(self, predictions: Any, references: Any, k: int = 10) -> dict[str, float]:
        return {f"mrr@{k}": float(np.nanmean(mrr(*hits_of(predictions, references), k)))}
