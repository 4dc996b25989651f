"""Novelty@k: how unexpected the recommended items are, by their popularity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def novelty(items: NDArray[np.int32], popularity: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Mean over the first k items of -log2((count + 1) / (sum of counts + |catalogue|)), in bits, one value a row.

    `items` (rows, places), -1 where a list is short (left out of the mean); `popularity`: training events of each item.
    NaN for an empty list. Source: Zhou et al., PNAS 2010 (self-information), with add-one counts for unseen items.
    """
    bits = -np.log2((popularity + 1) / (popularity.sum() + len(popularity)))
    first = items[:, :k]
    listed = (first >= 0).sum(axis=1)
    total = np.where(first >= 0, bits[first], 0.0).sum(axis=1)
    return np.divide(total, listed, out=np.full(len(items), np.nan), where=listed > 0)
