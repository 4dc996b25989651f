"""How good an index is, beyond its counts: who is hit by collisions, and do items that share codes belong together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Split


def judged(index: ItemIndex, split: Split) -> dict[str, Any]:
    """Counts for the health report that need the split.

    `colliding_test_targets`: share of test targets whose item shared its name before repair. `purity`: for each level, among
    pairs of items that share their codes up to it, the share with the same `categories`; `purity_by_chance`: among all pairs.
    """
    report: dict[str, Any] = {}
    if len(index.colliding):
        hit = index.colliding[split.targets(split.test)]
        report["colliding_test_targets"] = float(hit.mean()) if len(hit) else 0.0
    if "categories" in split.log.items.columns and index.codes.shape[1]:
        named = split.log.items["categories"].to_list()
        kinds = np.unique(named, return_inverse=True)[1].reshape(-1)
        if len(np.unique(kinds)) > 1:
            report["purity"] = [same_pairs(index.codes[:, : level + 1], kinds) for level in range(index.codes.shape[1])]
            report["purity_by_chance"] = same_pairs(np.zeros((len(kinds), 1), dtype=np.int32), kinds)
    return report


def same_pairs(codes: NDArray[np.int32], kinds: NDArray[np.int64]) -> float | None:
    """Of the pairs of items with equal rows of `codes`, the share with equal `kinds`; None where there is no pair."""
    prefix = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    together = _pairs(np.unique(prefix, return_counts=True)[1])
    if together == 0:
        return None
    both = np.unique(np.column_stack([prefix, kinds]), axis=0, return_counts=True)[1]
    return float(_pairs(both) / together)


def _pairs(counts: NDArray[np.int64]) -> float:
    return float((counts * (counts - 1) / 2).sum())
