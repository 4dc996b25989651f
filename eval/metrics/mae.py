"""MAE: the mean size of a miss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mae(predicted: NDArray[np.float64], given: NDArray[np.float64]) -> float:
    """mean of |predicted - given| over rows, in rating steps; NaN without rows.

    Both have shape (rows,). Source: Herlocker et al., ACM TOIS 2004, sec. 4.1.
    """
    return float(np.abs(predicted - given).mean()) if len(given) else float("nan")
