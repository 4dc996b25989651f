"""Semantic ids by residual k-means over item-text vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rectune.indexing.item_index import Codes, ItemIndex, from_levels, repair_with_digit
from rectune.indexing.text_embedding import BUNDLED, embed_texts, item_texts
from rectune.split import Split


def residual_kmeans(
    split: Split,
    *,
    text: list[str],
    levels: int = 3,
    codes: int = 256,
    embedder: str = BUNDLED,
    seed: int = 0,
) -> ItemIndex:
    """Cluster item texts, then what the clusters leave over, and so on: `levels` codes out of `codes` an item.

    `text` names the item columns that are embedded. Items that end with the same codes get one more level that
    tells them apart (counted in the health report).
    """
    if levels < 1 or codes < 2:
        raise ValueError(f"`levels` must be at least 1 and `codes` at least 2, got {levels} and {codes}.")
    vectors = embed_texts(item_texts(split.log.items, text), embedder=embedder)
    found = cluster_residuals(vectors, levels=levels, codes=codes, seed=seed)
    words = _nearest_titles(vectors, found[:, 0], split.log.items["title"].to_list())
    unique, colliding = repair_with_digit(found)
    return from_levels(unique, meanings=[words], colliding=colliding)


def cluster_residuals(vectors: NDArray[np.float32], *, levels: int, codes: int, seed: int) -> Codes:
    """Residual k-means codes of `vectors` (items, dimensions): int32 of shape (items, levels)."""
    from sklearn.cluster import KMeans

    residual = vectors.astype(np.float64)
    found = np.zeros((len(vectors), levels), dtype=np.int32)
    for level in range(levels):
        distinct = len(np.unique(residual.round(9), axis=0))
        model = KMeans(n_clusters=min(codes, distinct), n_init=3, random_state=seed + level).fit(residual)
        found[:, level] = model.labels_
        residual = residual - model.cluster_centers_[model.labels_]
    return found


def _nearest_titles(vectors: NDArray[np.float32], labels: NDArray[np.int32], titles: Sequence[str]) -> list[str]:
    """For each code of the first level the titles of the eight items nearest to its centre."""
    words = []
    for code in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == code)
        centre = vectors[members].mean(axis=0)
        nearest = members[np.argsort(-(vectors[members] @ centre), kind="stable")[:8]]
        words.append(" ".join(titles[i] for i in nearest))
    return words
