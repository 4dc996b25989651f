"""What a rolled-out item is worth: rewards by name, each a function of whole groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rectune.baselines.prior import Score
from rectune.log.split import Split
from rectune.recipe.calls import named
from rectune.recipe.homes import HOMES
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


class Rewarding(Protocol):
    """A reward: numbers (groups, items) for whole groups; it is given item vectors and the run's prior where it names them."""

    def __call__(self, groups: RolledGroups, *, vectors: ItemVectors = ..., prior: Score = ...) -> Reward:
        """What each item is worth."""


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
        raise ValueError(
            "the reward `prior` scores rows of the split, and a task has rows of its own. Leave one of them out."
        )
    scores = np.asarray(prior(groups.split, rows.take(at)), dtype=np.float64)
    mean, best = scores.mean(1, keepdims=True), scores.max(1, keepdims=True)
    own = np.take_along_axis(scores, groups.items.astype(np.int64), 1)
    return np.asarray((own - mean) / np.maximum(best - mean, 1e-12))


def rewards_of(names: Sequence[str]) -> list[Callable[..., Any]]:
    """The functions that rewards name. Raises ValueError for a name that means nothing or a function that takes something else."""
    home, where = HOMES["stages.rewards"], "`rewards`"
    return [named(name, home, where) for name in names]


def reads_of(names: Sequence[str]) -> tuple[str, ...]:
    """Boxes of the run that rewards read, by their parameters."""
    wanted = {parameter for reward in rewards_of(names) for parameter in inspect.signature(reward).parameters}
    return tuple(name for name in HOMES["stages.rewards"].may if name in wanted)


class Rewards:
    """The rewards of a stage as functions that GRPOTrainer calls, each told what it reads of the run."""

    def __init__(self, names: Sequence[str], *, split: Split, held: dict[str, Any], each: int) -> None:
        self._split, self._each = split, each
        self.functions = [
            self._wrapped(name, function, {read: held[read] for read in reads_of([name])})
            for name, function in zip(names, rewards_of(names), strict=True)
        ]

    def _wrapped(self, name: str, function: Callable[..., Any], held: dict[str, Any]) -> Callable[..., list[float]]:
        def reward(
            *, item: list[int], log_prob: list[float], target: list[int], row: list[int], **rest: Any
        ) -> list[float]:
            groups = RolledGroups(
                np.array(item, dtype=np.int32).reshape(-1, self._each), np.array(log_prob, dtype=np.float32).reshape(-1, self._each),
                np.array(target[:: self._each]), np.array(row[:: self._each]), self._split,
            )  # fmt: skip
            found = np.asarray(function(groups, **held), dtype=np.float64)
            if found.shape != groups.items.shape:
                raise ValueError(
                    f"the reward `{name}` gave numbers of shape {found.shape} for items of shape {groups.items.shape}."
                )
            if not np.isfinite(found).all():
                g, i = np.argwhere(~np.isfinite(found))[0]
                raise ValueError(
                    f"the reward `{name}` gave {found[g, i]} for item {self._split.log.items['item_id'][int(groups.items[g, i])]} in row {groups.row[g]}; it "
                    "must be a number."
                )
            return [float(value) for value in found.ravel()]

        reward.__name__ = name.rpartition(":")[2]
        return reward
