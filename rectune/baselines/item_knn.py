"""Item-based nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from rectune.baselines.scoring import (
    MOST_ITEMS,
    Baseline,
    Floats,
    Scorer,
    choose,
    history_matrix,
    train_counts,
    train_matrix,
)
from rectune.log.split import Rows, Split


def item_knn(split: Split, *, most_items: int = MOST_ITEMS) -> Baseline:
    """score(j) = sum over the history of decay ** age x similarity(i, j), cosine with shrinkage, the nearest only.

    Neighbours, shrinkage and decay are chosen on validation. Source: Sarwar et al., WWW 2001; shrinkage as in Bell
    and Koren, ICDM 2007. Above `most_items` items only the most popular ones have neighbours; `settings` says so.
    """

    kept = np.argsort(-train_counts(split), kind="stable")[:most_items]
    chosen = sparse.diags(np.isin(np.arange(split.log.n_items), kept).astype(np.float64))
    matrix = (train_matrix(split) @ chosen).tocsr()
    matrix.eliminate_zeros()

    def candidates() -> Iterator[tuple[dict[str, Any], Scorer]]:
        for shrink in (0.0, 20.0):
            similar = _cosine(matrix, shrink)
            for neighbours in (20, 100):
                nearest = _keep_nearest(similar, neighbours)
                for decay in (1.0, 0.7):
                    settings = {"shrink": shrink, "neighbours": neighbours, "decay": decay}
                    yield {**settings, "items": len(kept), "of": split.log.n_items}, _scorer(split, nearest, decay)

    return choose(split, "item-KNN", candidates(), most=2000)


def _scorer(split: Split, similar: sparse.csr_matrix, decay: float) -> Scorer:
    def score(rows: Rows) -> Floats:
        return np.asarray((history_matrix(split, rows, decay) @ similar).todense())

    return score


def _cosine(matrix: sparse.csr_matrix, shrink: float) -> sparse.csr_matrix:
    """Similarity of items, (items, items), 0 on the diagonal."""
    both = (matrix.T @ matrix).tocsr()
    norm = np.sqrt(both.diagonal())
    both.setdiag(0.0)
    both.eliminate_zeros()
    pairs = both.tocoo()
    pairs.data = pairs.data / (norm[pairs.row] * norm[pairs.col] + shrink)
    return pairs.tocsr()


def _keep_nearest(similar: sparse.csr_matrix, neighbours: int) -> sparse.csr_matrix:
    """Keep the `neighbours` largest entries of each row."""
    pairs = similar.tocoo()
    order = np.lexsort((pairs.col, -pairs.data, pairs.row))
    row = pairs.row[order]
    starts = np.searchsorted(row, np.arange(similar.shape[0]))
    kept = order[np.arange(len(row)) - starts[row] < neighbours]
    return sparse.csr_matrix((pairs.data[kept], (pairs.row[kept], pairs.col[kept])), shape=similar.shape)
