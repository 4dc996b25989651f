"""RMSE: the size of a typical miss, large misses weighing more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rmse(predicted: NDArray[np.float64], given: NDArray[np.float64]) -> float:
    """sqrt(mean of (predicted - given)²) over rows, in rating steps; NaN without rows.

    Both have shape (rows,). Source: Herlocker et al., ACM TOIS 2004, sec. 4.1.
    """
    return float(np.sqrt(((predicted - given) ** 2).mean())) if len(given) else float("nan")
