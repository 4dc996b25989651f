"""What a rolled-out item is worth: rewards by name, each a function of whole groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rectune.baselines.prior import Score
from rectune.log.split import Split
from rectune.vectors.item_vectors import ItemVectors

Reward = NDArray[np.floating]


@dataclass(frozen=True)
class RolledGroups:
    """Groups of items and what a reward may know of them. `items` (groups, each) int32; `log_probs` (groups, each): by which the model ranks them;
    `target` (groups,): the item that came next; `row` (groups,): lasting numbers of rows of the split."""

    items: NDArray[np.int32]
    log_probs: NDArray[np.float32]
    target: NDArray[np.int64]
    row: NDArray[np.int64]
    split: Split

    @cached_property
    def hits(self) -> NDArray[np.bool_]:
        """Which items are the target, (groups, each)."""
        return np.asarray(self.items == self.target[:, None])


def hit(groups: RolledGroups) -> Reward:
    """1 for the target, 0 for any other item."""
    return groups.hits.astype(np.float32)


def rank(groups: RolledGroups) -> Reward:
    """Below 0 for wrong items, the more the higher the model ranks them, and 0 in groups without the target (MiniOneRec, 2025).

    At place i, from 0: -1 / log2(i + 2), divided by the sum over all places of a group.
    """
    place = np.argsort(np.argsort(-groups.log_probs, axis=1, kind="stable"), axis=1, kind="stable")
    discount = 1 / np.log2(place + 2.0)
    there = groups.hits.any(1, keepdims=True)
    return np.asarray(np.where(there & ~groups.hits, -discount / discount.sum(1, keepdims=True), 0.0))


def similarity(groups: RolledGroups, vectors: ItemVectors) -> Reward:
    """The cosine of an item's vector and the target's; 0 where one of them has none."""
    joined = vectors.joined()
    length = np.linalg.norm(joined, axis=1, keepdims=True)
    unit = joined / np.where(length > 0, length, 1.0)
    return np.asarray(np.einsum("ged,gd->ge", unit[groups.items], unit[groups.target]))


def prior(groups: RolledGroups, prior: Score) -> Reward:
    """What the run's prior gives an item: 1 for the best of the catalogue, 0 for the mean of it, in between on its own scale.

    It was fitted on the training events, the targets among them.
    """
    rows = groups.split.train
    order = np.argsort(rows.row, kind="stable")
    at = order[np.minimum(np.searchsorted(rows.row[order], groups.row), len(order) - 1)]
    if not np.array_equal(rows.row[at], groups.row):
        raise ValueError("the reward `prior` scores rows of the split, and a task has rows of its own. Leave one of them out.")
    scores = np.asarray(prior(groups.split, rows.take(at)), dtype=np.float64)
    mean, best = scores.mean(1, keepdims=True), scores.max(1, keepdims=True)
    own = np.take_along_axis(scores, groups.items.astype(np.int64), 1)
    return np.asarray((own - mean) / np.maximum(best - mean, 1e-12))
