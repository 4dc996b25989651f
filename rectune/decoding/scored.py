"""Lists out of scores of whole catalogues: what a ranker needs that has no trie to search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.ranking import Ranking
from rectune.decoding.shelf import Shelf
from rectune.tasks.rows import TaskRows


def ranking_of(scores: NDArray[np.floating], rows: TaskRows, shelf: Shelf, *, width: int) -> Ranking:
    """The `width` best items of each row that the shelf allows, the shelf's prior added; equal scores in the order of items.

    `scores`: (rows, items). Raises ValueError when no item is allowed.
    """
    if shelf.allowed is not None and not shelf.allowed.any():
        raise ValueError("no item may be listed: all of them are denied, or none of the allowed is in the catalogue.")
    whole = np.array(scores, dtype=np.float64)
    if shelf.prior is not None:
        whole += shelf.prior(np.arange(len(rows)))
    if shelf.allowed is not None:
        whole[:, ~shelf.allowed] = -np.inf
    for i in range(len(rows)):
        if shelf.only is not None:
            apart = np.ones(whole.shape[1], dtype=bool)
            apart[list(shelf.only[i])] = False
            whole[i, apart] = -np.inf
        if shelf.hidden is not None:
            whole[i, list(shelf.hidden[i])] = -np.inf
    width = min(width, whole.shape[1])
    order = np.argsort(-whole, axis=1, kind="stable")[:, :width]
    best = np.take_along_axis(whole, order, axis=1).astype(np.float32)
    items = np.where(np.isneginf(best), -1, order).astype(np.int32)
    return Ranking(rows.row.astype(np.int64), items, best, np.ones(len(rows), dtype=bool))
