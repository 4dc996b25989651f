"""Item ids from who buys what together: recursive spectral clustering of the co-occurrence graph (CID)."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr, svd
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import lobpcg
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from rectune.indexing.item_index import Codes, ItemIndex, from_levels
from rectune.log.split import Split

_MOST_LEVELS = 26  # one letter each, the leaf's included
_DENSE = 1000  # up to so many nodes a dense solver takes less than half a second


def collaborative(split: Split, *, clusters: int = 20, leaf: int = 500, seed: int = 0) -> ItemIndex:
    """Name each item by its clusters in the co-occurrence graph of the training events, then its number there.

    The catalogue is split into `clusters` parts, and so is every part of more than `leaf` items (Hua et al. 2023, How to
    Index Item IDs for Recommendation Foundation Models, collaborative indexing). Codes count from 0 within each parent.
    Items of a part that share no user with the rest of it form one part more, the code `clusters`: the paper's code
    leaves them out of the graph. Raises ValueError for `clusters` below 2 or above the catalogue, and `leaf` below 1.
    """
    if clusters < 2:
        raise ValueError(f"`clusters` must be at least 2, got {clusters}.")
    if leaf < 1:
        raise ValueError(f"`leaf` is in items and must be at least 1, got {leaf}.")
    if split.log.n_items < clusters:
        raise ValueError(
            f"`clusters`: {clusters} clusters need as many items, and the catalogue holds {split.log.n_items}. "
            f"Set `clusters` to at most {split.log.n_items}."
        )
    rng = np.random.default_rng(seed)
    with threadpool_limits(1):  # sums in one order, so that names don't depend on the machine's cores
        paths = cluster_paths(co_occurrence(split), clusters=clusters, leaf=leaf, rng=rng)
    return from_levels(with_leaves(paths, rng=rng))


def co_occurrence(split: Split) -> Any:
    """How many training users touched both of two items: a symmetric sparse array (items, items), diagonal empty."""
    users, items = split.train_sequences()
    touched = csr_array((np.ones(len(users)), (users, items)), shape=(split.log.n_users, split.log.n_items))
    touched.sum_duplicates()
    touched.data[:] = 1  # a user who touched an item twice is still one user
    together = (touched.T @ touched).tocsr()
    together.setdiag(0)
    together.eliminate_zeros()
    return together


def cluster_paths(graph: Any, *, clusters: int, leaf: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Split the graph, then every part of more than `leaf` nodes, and so on; the part numbers of each node."""
    paths: list[tuple[int, ...]] = [()] * graph.shape[0]
    waiting = [np.arange(graph.shape[0])]
    while waiting:
        members = waiting.pop()
        depth = len(paths[members[0]])
        labels = _parts(graph[members][:, members], clusters=clusters, leaf=leaf, depth=depth, rng=rng)
        for label in np.unique(labels):
            part = members[labels == label]
            for item in part:
                paths[item] += (int(label),)
            if len(part) > leaf:
                waiting.append(part)
    return paths


def _parts(graph: Any, *, clusters: int, leaf: int, depth: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Part of each node, shape (nodes,); 0 … clusters - 1, and `clusters` for nodes without an edge."""
    size = graph.shape[0]
    linked = np.flatnonzero(graph.sum(axis=0) > 0)
    labels = np.full(size, clusters)
    labels[linked] = 0
    if len(linked) > clusters:
        labels[linked] = spectral_parts(graph[linked][:, linked], parts=clusters, rng=rng)
    # Where the graph says nothing (one part holds all), or parts peel off so few items that the letters would run out,
    # an even cut by chance ends the recursion.
    cuts = 0
    while leaf * clusters**cuts < size:
        cuts += 1
    if (labels == labels[0]).all() or depth + 1 + cuts > _MOST_LEVELS - 1:
        labels = rng.permutation(np.arange(size) % clusters)
    return labels


def spectral_parts(graph: Any, *, parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Part of each node of a graph without isolated nodes, shape (nodes,), by normalised spectral clustering.

    Gives what scikit-learn's SpectralClustering(assign_labels="cluster_qr"), which the paper's code calls, gives, a
    hundred times faster on a sparse graph: the eigenvectors of D^-1/2 A D^-1/2 for the `parts` largest eigenvalues,
    divided by D^1/2, then one QR with pivoting (Damle, Minden and Ying 2019, sec. 3).
    """
    root = np.sqrt(graph.sum(axis=0))
    scale = diags_array(1 / root)
    vectors = _leading_vectors(csr_array(scale @ graph @ scale), root, count=parts, rng=rng) / root[:, None]
    _, _, pivots = qr(vectors.T, mode="economic", pivoting=True)
    left, _, right = svd(vectors[pivots[:parts]].T)
    return np.asarray(np.abs(vectors @ (left @ right)).argmax(axis=1))


def _leading_vectors(matrix: Any, first: Any, *, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Eigenvectors for the `count` largest eigenvalues, (nodes, count). `first`: the known one, for the largest."""
    size = matrix.shape[0]
    if size <= max(_DENSE, 10 * count):
        # all of them: LAPACK's solver for a few returns none on a complete graph, where they are equal
        return np.asarray(np.linalg.eigh(matrix.toarray())[1][:, -count:])
    # LOBPCG, not ARPACK: on graphs in many pieces ARPACK restarts from numbers that no seed reaches.
    start = rng.standard_normal((size, count))
    start[:, 0] = first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # not converged to 1e-6: the cut is only less sharp
        return np.asarray(lobpcg(matrix, start, largest=True, tol=1e-6, maxiter=400)[1])


def with_leaves(paths: Sequence[tuple[int, ...]], *, rng: np.random.Generator) -> Codes:
    """Codes of paths, each followed by the item's number within its path: (items, levels) int32, -1 after the end.

    Leaf codes of a level begin above its path codes, so their tokens only end names, and no name begins another.
    Numbers are given in shuffled order: catalogue order may be that of the log, held-out events included.
    """
    levels = np.full((len(paths), max(map(len, paths)) + 1), -1, dtype=np.int32)
    for item, path in enumerate(paths):
        levels[item, : len(path)] = path
    above = levels.max(axis=0) + 1
    taken: Counter[tuple[int, ...]] = Counter()
    for item in rng.permutation(len(paths)):
        path = paths[item]
        levels[item, len(path)] = above[len(path)] + taken[path]
        taken[path] += 1
    return levels
