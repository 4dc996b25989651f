"""From ranked lists to hits: the common input of the ranking metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def hits_of(
    predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which places of each list hold a relevant item.

    Returns hits (rows, longest list) and the number of relevant items (rows,). An item listed twice is a hit once.
    Raises ValueError when the two have different lengths.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} lists, but {len(references)} sets of relevant items.")
    width = max((len(p) for p in predictions), default=0)
    hits = np.zeros((len(predictions), width), dtype=bool)
    for i, (listed, relevant) in enumerate(zip(predictions, references, strict=True)):
        left = set(relevant)
        for j, item in enumerate(listed):
            if item in left:
                hits[i, j] = True
                left.discard(item)
    return hits, np.array([len(set(r)) for r in references], dtype=np.int64)


def hits_at(place: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Hits of rows with one relevant item at `place` (from 0), shape (rows, width); none where place >= width."""
    return np.asarray(place[:, None] == np.arange(width)[None, :])
