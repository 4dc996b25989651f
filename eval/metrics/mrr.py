"""MRR@k: one over the place of the first hit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mrr(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """mrr_u = 1 / (1 + place of the first hit) if that place is below k, else 0; NaN where nothing is relevant.

    `hits`: (rows, places) bool, places from 0; `relevant`: (rows,). Source: Voorhees, TREC-8 question answering, 1999.
    """
    within = hits[:, :k]
    first = within.argmax(axis=1)
    value = np.where(within.any(axis=1), 1.0 / (first + 1), 0.0)
    return np.where(relevant > 0, value, np.nan)
