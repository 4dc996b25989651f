"""Semantic ids by residual k-means over item vectors."""

from __future__ import annotations

from rectune.indexing.item_index import ItemIndex
from rectune.indexing.quantised import quantised_index
from rectune.indexing.quantiser import check_collapse, check_sizes, fit_residuals
from rectune.indexing.repair import Repair
from rectune.log.split import Split
from rectune.vectors.item_vectors import ItemVectors


def residual_kmeans(
    split: Split,
    vectors: ItemVectors,
    *,
    levels: int = 3,
    codes: int = 256,
    repair: Repair = "digit",
    complete: bool = False,
    seed: int = 0,
) -> ItemIndex:
    """Cluster item vectors, then what the clusters leave over, and so on: `levels` codes out of `codes` an item.

    `repair`: how items that end with the same codes are told apart (see `repaired`). `complete`: tokens for all codes, used or not, as
    OneRec's tokenizers hold them (see `quantised_index`).
    """
    check_sizes(len(vectors.item_ids), levels=levels, codes=codes)
    joined = vectors.joined()
    quantiser = fit_residuals(joined, levels=levels, codes=codes, seed=seed)
    found, distances = quantiser.codes(joined)
    check_collapse(found, codes=codes)
    return quantised_index(split, vectors, quantiser, found, distances, repair=repair, complete=complete)
