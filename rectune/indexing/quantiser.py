"""Residual quantisation: codebooks fitted on vectors, codes by them, and the checks of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rectune.indexing.item_index import Codes, perplexity

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Quantiser:
    """A fitted residual quantiser.

    `layers`: weight (out, in) and bias (out,) of an encoder's linear layers with ReLU between them; none where the
    vectors themselves are quantised. `codebooks`: (codes, dimensions) for each level.
    """

    codebooks: tuple[Vectors, ...]
    layers: tuple[tuple[Vectors, Vectors], ...] = ()

    def encode(self, vectors: Vectors) -> Vectors:
        """What is quantised, (items, dimensions)."""
        for number, (weight, bias) in enumerate(self.layers):
            vectors = vectors @ weight.T + bias
            if number + 1 < len(self.layers):
                vectors = np.maximum(vectors, 0.0)
        return vectors

    def codes(self, vectors: Vectors) -> tuple[Codes, NDArray[np.float32]]:
        """The nearest code of each level for what is left by the levels before: (items, levels); and squared distances to
        the codes of the last level (items, codes)."""
        residual = self.encode(vectors)
        found = np.zeros((len(vectors), len(self.codebooks)), dtype=np.int32)
        distances = np.zeros((len(vectors), 0), dtype=np.float32)
        for level, book in enumerate(self.codebooks):
            distances = squared_distances(residual, book)
            found[:, level] = distances.argmin(1)
            residual = residual - book[found[:, level]]
        return found, distances

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The same as named arrays, for `from_arrays`."""
        out = {f"codebook{i}": book for i, book in enumerate(self.codebooks)}
        for i, (weight, bias) in enumerate(self.layers):
            out |= {f"weight{i}": weight, f"bias{i}": bias}
        return out

    @staticmethod
    def from_arrays(arrays: dict[str, NDArray[np.float32]]) -> Quantiser:
        """The quantiser that `arrays` wrote."""
        books = [arrays[f"codebook{i}"] for i in range(sum(name.startswith("codebook") for name in arrays))]
        count = sum(name.startswith("weight") for name in arrays)
        return Quantiser(tuple(books), tuple((arrays[f"weight{i}"], arrays[f"bias{i}"]) for i in range(count)))


def squared_distances(vectors: Vectors, book: Vectors) -> NDArray[np.float32]:
    """Squared Euclidean distances, (items, codes)."""
    return np.asarray((vectors**2).sum(1)[:, None] - 2 * vectors @ book.T + (book**2).sum(1)[None], dtype=np.float32)


def check_sizes(items: int, *, levels: int, codes: int) -> None:
    """Raise ValueError where a quantiser of `levels` x `codes` cannot name so many items."""
    if levels < 1 or codes < 2:
        raise ValueError(f"`levels` must be at least 1 and `codes` at least 2, got {levels} and {codes}.")
    if items < codes:
        raise ValueError(f"`codes` is {codes}, but there are only {items} items to learn them from. Lower `codes`.")


def check_collapse(levels: Codes, *, codes: int) -> None:
    """Raise ValueError when a fitted index has collapsed: its first level tells hardly anything, or most names are shared."""
    spread = perplexity(np.unique(levels[:, 0], return_counts=True)[1])
    least = max(1.5, codes / 32)
    if spread < least:
        raise ValueError(
            f"the index has collapsed: the perplexity of its first level is {spread:.1f} of {codes} codes (at least {least:.1f} "
            "is asked for). Train longer, lower `codes`, or look at the item vectors: they may be nearly equal."
        )
    names = len(np.unique(levels, axis=0))
    if names < min(len(levels), codes ** levels.shape[1]) / 2:
        raise ValueError(
            f"the index has collapsed: {len(levels)} items share {names} names. Raise `levels` or `codes`, or train longer."
        )


def fit_residuals(vectors: Vectors, *, levels: int, codes: int, seed: int, runs: int = 3) -> Quantiser:
    """Codebooks by k-means over `vectors` (items, dimensions), level after level over what is left; the best of `runs` each."""
    from sklearn.cluster import KMeans

    residual = vectors.astype(np.float64)
    books = []
    for level in range(levels):
        distinct = len(np.unique(residual.round(9), axis=0))
        model = KMeans(n_clusters=min(codes, distinct), n_init=runs, random_state=seed + level).fit(residual)
        books.append(model.cluster_centers_.astype(np.float32))
        residual = residual - model.cluster_centers_[model.labels_]
    return Quantiser(tuple(books))
