"""Batches of as many examples as a number of tokens holds, examples of like length together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from rectune.log.split import Ints
from rectune.methods.training import Features, lazy, trees_in
from rectune.runtime.seeded import seeded
from rectune.tasks.examples import Mixture

BATCHES = 7_002  # what the batches of an epoch are drawn under
ROWS = "rows"  # the column of a batch


@dataclass
class TokenBudget:
    """The key of batches by tokens."""

    batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Most tokens of a batch on one device, padding included: as many examples as that holds, of like length. It stands in for "
            "`per_device_train_batch_size`."
        },
    )
    replaces: ClassVar[dict[str, tuple[str, ...]]] = {
        "batch_tokens": ("per_device_train_batch_size", "train_sampling_strategy")
    }


def rows_for(config: Any, length: int) -> int:
    """How many examples of `length` tokens a batch of a training holds."""
    budget = vars(config).get("batch_tokens")
    return int(config.per_device_train_batch_size) if budget is None else max(1, budget // max(length, 1))


class TokenBatches:
    """The batches of each epoch: every example once, in about as many batches in each, by seed and epoch alone.

    Examples are sorted by length, in a new order among those of one length, and cut where the next one would go beyond the budget; then the
    batches are shuffled. An epoch whose wordings or rows are longer than those of the first has as many batches, which hold a little more.
    """

    def __init__(self, examples: Mixture, tokens: int, *, trees: bool) -> None:
        """`trees`: the examples of a group are one tree. Raises ValueError for what is longer than a batch."""
        self._examples, self._tokens, self._trees = examples, tokens, trees and examples.grouped
        self._sizes: tuple[int, Ints, Ints] | None = None
        self._planned: tuple[int, list[Ints]] | None = None
        sizes = self._units(0)[1]
        if len(sizes) and sizes.max() > tokens:
            what = "a tree of examples" if self._trees else "an example"
            raise ValueError(
                f"`batch_tokens` is {tokens:,}, and {what} has {int(sizes.max()):,} tokens. Raise it, or lower `max_length`."
            )
        self._count = len(self.plan(0))

    def __len__(self) -> int:
        return self._count

    def plan(self, epoch: int) -> list[Ints]:
        """The positions of each batch of an epoch."""
        if self._planned is None or self._planned[0] != epoch:
            unit, sizes = self._units(epoch)
            rng = seeded(self._examples.seed, epoch, BATCHES)
            order = np.lexsort((rng.permutation(len(sizes)), -sizes))
            ends = self._ends(sizes[order], epoch)
            batch = np.empty(len(sizes), dtype=np.int64)
            batch[order] = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
            batch = rng.permutation(len(ends))[batch][unit]  # of each position
            by_batch = np.argsort(batch, kind="stable")
            self._planned = epoch, np.split(by_batch, np.cumsum(np.bincount(batch))[:-1])
        return self._planned[1]

    def data(self, features: Features) -> Any:
        """A data set of batches, each with the features of its examples as `rows`."""

        def rows(numbers: Sequence[int], epoch: int) -> list[dict[str, Any]]:
            plan = self.plan(epoch)
            return [{ROWS: features(plan[number].tolist(), epoch)} for number in numbers]

        return lazy(self._examples, rows, length=len(self))

    def _units(self, epoch: int) -> tuple[Ints, Ints]:
        """The number of the unit that each position belongs to, (positions,), and the tokens of each unit; a unit stays in one batch."""
        if self._sizes is None or (self._examples.varies and self._sizes[0] != epoch):
            if self._trees:
                _, group = np.unique(self._examples.groups(epoch), return_inverse=True)
                self._sizes = epoch, *trees_in(self._examples, group, epoch)
            else:
                self._sizes = epoch, np.arange(len(self._examples)), self._examples.lengths(epoch)
        return self._sizes[1:]

    def _ends(self, sizes: Ints, epoch: int) -> Ints:
        """Where batches end in sizes that fall."""
        ends = self._cut(sizes, self._tokens)
        if epoch == 0 or len(ends) == (count := self._count):
            return ends
        low, high = self._tokens, self._tokens
        while len(ends) > count:  # the least budget that makes no more batches than the first epoch had
            low, high = high, 2 * high
            ends = self._cut(sizes, high)
        while high - low > 1:
            middle = (low + high) // 2
            some = self._cut(sizes, middle)
            if len(some) > count:
                low = middle
            else:
                high, ends = middle, some
        while len(ends) < count:  # the batch of the most examples becomes two
            starts = np.concatenate([[0], ends[:-1]])
            widest = int(np.argmax(ends - starts))
            ends = np.insert(ends, widest, (starts[widest] + ends[widest]) // 2)
        return ends

    def _cut(self, sizes: Ints, budget: int) -> Ints:
        ends, at = [], 0
        while at < len(sizes):
            rows = max(budget // int(sizes[at]), 1)  # the first is the longest, so all are padded to it
            at = min(at + rows, len(sizes))
            ends.append(at)
        return np.array(ends, dtype=np.int64)


def by_batches(trainer: Any) -> None:
    """Let a trainer take the elements of its data set as batches."""
    trainer.whole_batches = True
    trainer.data_collator = Unwrapped(trainer.data_collator)


class Unwrapped:
    """A collator for batches that are elements of a data set, and for rows as they are."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self._collate = collate

    def __call__(self, elements: list[Any]) -> dict[str, Any]:
        """The batch of one element's `rows`, or of the elements."""
        return self._collate([row for one in elements for row in one[ROWS]] if ROWS in elements[0] else elements)
