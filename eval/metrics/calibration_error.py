"""Expected calibration error: by how much stated probabilities miss the shares that came true."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def calibration_error(chances: NDArray[np.float64], liked: NDArray[np.int64], *, bins: int = 10) -> float:
    """sum over bins of |rows in bin| / |rows| x |mean chance - share liked|, bins of equal width on [0, 1].

    `chances` and `liked` (0 or 1) have shape (rows,); empty bins add nothing; NaN without rows. Source: Naeini, Cooper,
    Hauskrecht, AAAI 2015.
    """
    if len(chances) == 0:
        return float("nan")
    which = np.minimum((np.asarray(chances) * bins).astype(np.int64), bins - 1)
    gap = np.bincount(which, weights=chances - liked, minlength=bins)
    return float(np.abs(gap).sum() / len(chances))
