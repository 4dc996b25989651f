"""Recall@k: the share of the relevant items that stand among the first k."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def recall(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """recall_u = |hits among the first k| / |relevant|, one value a row, NaN where nothing is relevant.

    `hits`: (rows, places) bool, `relevant`: (rows,). With one relevant item it equals the hit rate. Source: Manning,
    Raghavan, Schütze, Introduction to Information Retrieval, sec. 8.3.
    """
    counts = hits[:, :k].sum(axis=1).astype(np.float64)
    return np.divide(counts, relevant, out=np.full(len(hits), np.nan), where=relevant > 0)
