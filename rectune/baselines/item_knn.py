"""Item-based nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from tqdm import tqdm

from rectune.baselines.scoring import (
    MOST_ITEMS,
    Baseline,
    Floats,
    Scorer,
    choose,
    history_matrix,
    part_of,
    train_counts,
    train_matrix,
)
from rectune.log.split import Rows, Split
from rectune.runtime.ragged import starts_of, within
from rectune.runtime.room import Room

SHRINK, NEIGHBOURS = (0.0, 20.0), (20, 100)
PAIR = 100  # bytes that a pair of items takes while the nearest are looked for: counts, similarity, places, their order


def item_knn(split: Split, *, most_items: int = MOST_ITEMS, room: Room = Room()) -> Baseline:  # noqa: B008  frozen
    """score(j) = sum over the history of decay ** age x similarity(i, j), cosine with shrinkage, the nearest only.

    Neighbours, shrinkage and decay are chosen on validation. Source: Sarwar et al., WWW 2001; shrinkage as in Bell
    and Koren, ICDM 2007. Above `most_items` items only the most popular ones have neighbours; name and `settings` say so.
    """

    kept = np.argsort(-train_counts(split), kind="stable")[:most_items]
    chosen = sparse.diags(np.isin(np.arange(split.log.n_items), kept).astype(np.float64))
    matrix = (train_matrix(split) @ chosen).tocsr()
    matrix.eliminate_zeros()

    def candidates() -> Iterator[tuple[dict[str, Any], Scorer]]:
        for shrink in SHRINK:
            widest = nearest_items(matrix, shrink, max(NEIGHBOURS), room)
            for neighbours in NEIGHBOURS:
                nearest = _first(widest, neighbours)
                for decay in (1.0, 0.7):
                    settings = {"shrink": shrink, "neighbours": neighbours, "decay": decay}
                    yield {**settings, "items": len(kept), "of": split.log.n_items}, _scorer(split, nearest, decay)

    return choose(split, f"item-KNN{part_of(split, kept)}", candidates(), most=2000, room=room)


def _scorer(split: Split, similar: sparse.csr_matrix, decay: float) -> Scorer:
    def score(rows: Rows) -> Floats:
        return np.asarray((history_matrix(split, rows, decay) @ similar).todense())

    return score


def nearest_items(matrix: sparse.csr_matrix, shrink: float, neighbours: int, room: Room) -> sparse.csr_matrix:
    """Cosine similarity with shrinkage of each item to its `neighbours` nearest others, (items, items), nearest first; the first of equal ones.

    `matrix`: which user touched which item, (users, items). Items are taken in blocks whose pairs the room allows.
    """
    columns, count = matrix.tocsc(), matrix.shape[1]
    norm = np.sqrt(np.asarray(matrix.sum(axis=0)).ravel())
    pairs = np.minimum(np.asarray(matrix.sum(axis=1)).ravel() @ matrix, count)  # of each item, at most
    block = np.cumsum(pairs) // max(room.of_blocks // PAIR, 1)
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), count]
    parts = []
    for begin, end in tqdm(
        list(pairwise(edges)), desc=f"item-KNN, shrink {shrink:g}", unit="block", disable=len(edges) < 4
    ):
        both = (columns[:, begin:end].T @ matrix).tocoo()
        other = both.row + begin != both.col
        row, column = both.row[other], both.col[other]
        value = both.data[other] / (norm[row + begin] * norm[column] + shrink)
        parts.append(_keep_nearest(row, column, value, neighbours, (end - begin, count)))
    return sparse.vstack(parts, format="csr")


def _keep_nearest(
    row: NDArray[Any], column: NDArray[Any], value: Floats, neighbours: int, shape: tuple[int, int]
) -> sparse.csr_matrix:
    """The `neighbours` largest entries of each row, the largest first."""
    order = np.lexsort((column, -value, row))
    count = np.bincount(row, minlength=shape[0])
    kept = order[within(count) < neighbours]
    ends = starts_of(np.minimum(count, neighbours))
    return sparse.csr_matrix((value[kept], column[kept], ends), shape=shape)


def _first(nearest: sparse.csr_matrix, neighbours: int) -> sparse.csr_matrix:
    """The first `neighbours` entries of each row."""
    count = np.diff(nearest.indptr)
    kept = within(count) < neighbours
    ends = starts_of(np.minimum(count, neighbours))
    return sparse.csr_matrix((nearest.data[kept], nearest.indices[kept], ends), shape=nearest.shape)
