"""NDCG@k: hits count less the lower they stand, as a share of the best possible order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ndcg(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """ndcg_u = sum over hit places r < k of 1 / log2(r + 2), over the same sum for the first min(k, |relevant|) places.

    `hits`: (rows, places) bool, places from 0; `relevant`: (rows,). One value a row, NaN where nothing is relevant.
    Source: Järvelin and Kekäläinen, ACM TOIS 2002, with binary gains.
    """
    gains = 1.0 / np.log2(np.arange(2, max(k, hits.shape[1]) + 2))
    found = hits[:, :k] @ gains[: hits[:, :k].shape[1]]
    best = np.concatenate([[0.0], gains[:k].cumsum()])[np.minimum(relevant, k)]
    return np.divide(found, best, out=np.full(len(hits), np.nan), where=relevant > 0)
