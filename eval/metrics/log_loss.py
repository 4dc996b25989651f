"""Log loss: how surprised the probabilities are by what happened."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def log_loss(chances: NDArray[np.float64], liked: NDArray[np.int64]) -> NDArray[np.float64]:
    """-log p(what happened), natural logarithm, one value a row; p is clipped to [1e-15, 1 - 1e-15].

    `chances`: probability of a like, `liked`: 0 or 1; shape (rows,). Source: Good, J. Royal Stat. Soc. B 1952.
    """
    clipped = np.clip(chances, 1e-15, 1 - 1e-15)
    return np.asarray(-np.log(np.where(liked == 1, clipped, 1 - clipped)))
