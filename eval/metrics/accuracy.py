"""Accuracy: how often the answer is the right one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def accuracy(answered: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    """share of rows whose answer is the right one; NaN without rows. Both are positions of answers, shape (rows,).

    Source: Sokolova and Lapalme, Information Processing and Management 2009, table 3 (accuracy for one label a row).
    """
    return float((answered == right).mean()) if len(right) else float("nan")
