"""Semantic ids by balanced residual k-means: at every level all codes have equally many items."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from rectune.indexing.item_index import ItemIndex
from rectune.indexing.quantised import quantised_index
from rectune.indexing.quantiser import Quantiser, Vectors, check_collapse, check_sizes, squared_distances
from rectune.indexing.repair import Repair
from rectune.log.split import Split
from rectune.vectors.item_vectors import ItemVectors


def balanced_kmeans(
    split: Split,
    vectors: ItemVectors,
    *,
    levels: int = 3,
    codes: int = 256,
    repair: Repair = "digit",
    rounds: int = 10,
    complete: bool = False,
    seed: int = 0,
) -> ItemIndex:
    """As `residual_kmeans`, but no code has more than items / codes items, rounded up (OneRec, 2025, sec. 3.1).

    `rounds`: how often items are dealt out and centres moved. `complete`: see `residual_kmeans`.
    """
    check_sizes(len(vectors.item_ids), levels=levels, codes=codes)
    joined = vectors.joined()
    found = np.zeros((len(joined), levels), dtype=np.int32)
    residual, books = joined, []
    for level in range(levels):
        labels, centres = balanced_clusters(residual, codes, rounds=rounds, seed=seed + level)
        found[:, level] = labels
        books.append(centres)
        last, residual = residual, residual - centres[labels]
    check_collapse(found, codes=codes)
    distances = squared_distances(last, books[-1])
    return quantised_index(split, vectors, Quantiser(tuple(books)), found, distances, repair=repair, complete=complete)


def balanced_clusters(vectors: Vectors, codes: int, *, rounds: int, seed: int) -> tuple[NDArray[np.int32], Vectors]:
    """Labels (items,) and centres (codes, dimensions) of clusters with at most ceil(items / codes) items each."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():  # of fewer different vectors than codes, which `check_collapse` tells
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(n_clusters=codes, n_init=1, random_state=seed).fit(vectors)
    centres = found.cluster_centers_.astype(np.float32)
    labels = deal_out(squared_distances(vectors, centres))
    for _ in range(rounds):
        for code in range(codes):
            if (labels == code).any():
                centres[code] = vectors[labels == code].mean(0)
        moved = deal_out(squared_distances(vectors, centres))
        if (moved == labels).all():
            break
        labels = moved
    return labels, centres


def deal_out(distances: NDArray[np.float32]) -> NDArray[np.int32]:
    """Give each item a code, nearest pairs first, none more than ceil(items / codes) times. (items, codes) -> (items,)."""
    items, codes = distances.shape
    room = np.full(codes, -(-items // codes))
    labels = np.full(items, -1, dtype=np.int32)
    left = np.arange(items)
    while len(left):  # each round every item asks for its nearest code with room; the nearest askers get it
        open_codes = np.flatnonzero(room > 0)
        asked = open_codes[distances[np.ix_(left, open_codes)].argmin(1)]
        order = np.lexsort((left, distances[left, asked], asked))
        place = np.arange(len(left)) - np.searchsorted(asked[order], asked[order])
        won = order[place < room[asked[order]]]
        labels[left[won]] = asked[won]
        room -= np.bincount(asked[won], minlength=codes)
        left = np.delete(left, won)
    return labels
