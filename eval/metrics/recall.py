"""Recall@k: the share of the relevant items that stand among the first k."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from rectune.eval.metrics.hits import hits_of


def recall(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """recall_u = |hits among the first k| / |relevant|, one value a row, NaN where nothing is relevant.

    `hits`: (rows, places) bool, `relevant`: (rows,). With one relevant item it equals the hit rate. Source: Manning,
    Raghavan, Schütze, Introduction to Information Retrieval, sec. 8.3.
    """
    counts = hits[:, :k].sum(axis=1).astype(np.float64)
    return np.divide(counts, relevant, out=np.full(len(hits), np.nan), where=relevant > 0)


class Recall(evaluate.Metric):  # type: ignore[misc]
    """`evaluate` wrapper: predictions are ranked item ids, references the relevant ids; mean over rows."""

    def _info(self) -> Any:
        ids = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=recall.__doc__,
            features=datasets.Features({"predictions": ids, "references": ids}),
        )  # fmt: skip

    def _compute(self, predictions: Any, references: Any, k: int = 10) -> dict[str, float]:
        return {f"recall@{k}": float(np.nanmean(recall(*hits_of(predictions, references), k)))}
