"""A split: the log cut into histories and targets, no future in any history."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.log.log import Log
from rectune.log.shown import ShownBefore
from rectune.runtime.ragged import Ragged, ranges, starts_of, within

Ints = NDArray[np.signedinteger[Any]]
Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Rows:
    """Rows of one part of a split, as offsets into the events of the log; all arrays have shape (rows,), int32 where that suffices.

    The history of row i is `events[start[i]:stop[i]]`, oldest first, and its target `events[target[i]]`.
    `first[i]` is the oldest event of the same user that stands before the target: what counts as seen.
    `row` names the row for good: seeds, files and shards refer to it.
    """

    row: Ints
    user: Ints
    first: Ints
    start: Ints
    stop: Ints
    target: Ints

    def __len__(self) -> int:
        return len(self.row)

    def take(self, positions: NDArray[Any]) -> Rows:
        """Return the rows at `positions` (indices or a mask)."""
        return Rows(**{name: getattr(self, name)[positions] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Histories:
    """The items that each row shows, as slices of one array: row i is `items[start[i]:stop[i]]`, oldest first."""

    items: NDArray[np.int32]
    start: Ints
    stop: Ints

    def __call__(self, i: int) -> NDArray[np.int32]:
        """Item codes of row i, shape (length,)."""
        return self.items[self.start[i] : self.stop[i]]

    def take(self, positions: Ints) -> Histories:
        """Those of the rows at `positions`, in that order."""
        return Histories(self.items, self.start[positions], self.stop[positions])

    def without_first(self, counts: Ints) -> Histories:
        """Each without its oldest `counts` items, (rows,)."""
        return Histories(self.items, self.start + counts, self.stop)

    def joined(self) -> Ragged:
        """All of them one after the other."""
        lengths = self.stop - self.start
        return Ragged(self.items[ranges(self.start, lengths)], starts_of(lengths))


@dataclass(frozen=True, eq=False)
class Split:
    """A log and its three parts. `train_events`: the positions of the events that index and baselines may see.

    A split equals itself alone, so that what was learned from it can be kept under it.
    """

    log: Log
    train: Rows
    validation: Rows
    test: Rows
    train_events: Ints
    notes: dict[str, Any] = field(default_factory=dict)

    def part(self, name: Part) -> Rows:
        """Return the rows of a part by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def history(self, rows: Rows, i: int) -> NDArray[np.int32]:
        """Item codes of the history of row i, oldest first, shape (length,)."""
        return self.histories(rows)(i)

    def histories(self, rows: Rows) -> Histories:
        """Item codes of the histories of all rows."""
        return Histories(self.log.item_codes, rows.start, rows.stop)

    def earlier(self, rows: Rows, i: int) -> NDArray[np.int32]:
        """Item codes of all that the user of row i did before the target, oldest first, however long its history may be, shape (length,)."""
        return self.log.item_codes[rows.first[i] : rows.stop[i]]

    def seen(self, rows: Rows, i: int) -> NDArray[np.int32]:
        """Every item that the user of row i touched before the target, sorted, without repeats."""
        return np.unique(self.earlier(rows, i))

    def seen_before(self, rows: Rows) -> int:
        """How many of the rows' targets their user touched before: with seen items hidden they cannot be hit."""
        targets = self.targets(rows)
        return sum(int(targets[i] in self.seen(rows, i)) for i in range(len(rows)))

    def targets(self, rows: Rows) -> NDArray[np.int32]:
        """Target item of each row, shape (rows,)."""
        return self.log.item_codes[rows.target]

    def candidates(self, rows: Rows) -> Ragged | None:
        """Item codes of what each row offers to choose from, the target among them, in the source's order; None for a log whose rows offer nothing."""
        cut = self.log.cut
        if cut is None or "candidates" not in cut.columns:
            return None
        ends, offered = cut["target"].to_numpy(), cut["candidates"]
        at = np.minimum(np.searchsorted(ends, rows.target), len(ends) - 1)
        if not np.array_equal(ends[at], rows.target):
            return None  # rows of another split than the log came with
        return Ragged(offered.explode().to_numpy(), starts_of(offered.list.len().to_numpy())).take(at)

    def shown(self, rows: Rows) -> ShownBefore | None:
        """What the user of each row was shown until its target; None for a log that does not tell."""
        if self.log.shown is None or self.log.times is None:
            return None
        return ShownBefore(self.log.shown, self.log.times, rows.user, rows.first, rows.target)

    def tied(self, rows: Rows) -> int | None:
        """How many of the rows' targets share their time with the event before, so that the order of the file decides which is the
        target; None for a log without times."""
        times = self.log.times
        if times is None:
            return None
        before = np.maximum(rows.target - 1, 0)
        return int(((rows.target > rows.first) & (times[rows.target] == times[before])).sum())

    def train_sequences(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """User and item of each training event, user after user, oldest first; shapes (training events,)."""
        return self.log.user_codes[self.train_events], self.log.item_codes[self.train_events]

    @property
    def follows(self) -> NDArray[np.bool_]:
        """Whether each training event but the first comes right after the one before it, of the same user, shape (training events - 1,). Of a log
        that few rows were drawn from not all events between two are there."""
        users, events = self.log.user_codes[self.train_events], self.train_events
        same = users[1:] == users[:-1]
        return np.asarray(same if self.log.cut is not None else same & (np.diff(events) == 1))

    def trained(self, user: int) -> NDArray[np.int32]:
        """Item codes of the training events of a user, oldest first, shape (events,)."""
        users, items = self._trained
        begin, end = np.searchsorted(users, [user, user + 1])
        return items[begin:end]

    @cached_property
    def _trained(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        users, items = self.train_sequences()
        order = np.argsort(users, kind="stable")  # few rows of a log that came cut may stand otherwise
        return users[order], items[order]

    def save(self, folder: Path) -> None:
        """Write the offsets (not the log) into an existing folder."""
        for name in PARTS:
            rows = self.part(name)
            pl.DataFrame({f: getattr(rows, f) for f in rows.__dataclass_fields__}).write_parquet(
                folder / f"{name}.parquet"
            )
        np.save(folder / "train_events.npy", self.train_events)
        (folder / "split.json").write_text(json.dumps(self.notes))

    @staticmethod
    def load(folder: Path, log: Log) -> Split:
        """Read what `save` wrote, for the same log."""
        parts = {}
        for name in PARTS:
            frame = pl.read_parquet(folder / f"{name}.parquet")
            parts[name] = Rows(**{c: frame[c].to_numpy() for c in frame.columns})
        events = np.load(folder / "train_events.npy")
        return Split(log=log, train_events=events, notes=json.loads((folder / "split.json").read_text()), **parts)


class Splitter(Protocol):
    """A way to split; it is given the recipe's seed where it names it."""

    def __call__(self, log: Log, *, seed: int = ..., **keys: Any) -> Split:
        """Cut a log into histories and targets."""


def windows(split: Split, *, length: int) -> Rows:
    """Cover the training events of each user with windows of at most `length` + 1 events that share one event.

    Each window is a row whose target is its last event: with the loss on all events of a window, every training
    target is trained exactly once.
    """
    train = split.train
    last = np.ones(len(train), dtype=bool)
    last[:-1] = (train.user[1:] != train.user[:-1]) | (train.first[1:] != train.first[:-1])
    ends = np.flatnonzero(last)
    first, stop = train.first[ends].astype(np.int64), train.target[ends].astype(np.int64)
    count = -(-np.maximum(stop - first, 0) // length)
    at = np.repeat(np.arange(len(ends)), count)
    begin = first[at] + within(count) * length
    target = np.minimum(begin + length, stop[at])
    return Rows(row=target, user=train.user[ends][at], first=first[at], start=begin, stop=target, target=target)


def evenly(count: int, most: int) -> Ints:
    """Up to `most` of the positions 0 … count - 1, evenly spread, first and last included: a sample without chance."""
    return np.unique(np.linspace(0, count - 1, num=max(min(most, count), 0), dtype=np.int64))


def positions(log: Log) -> Ints:
    """The position of each event, shape (events,): int32 where that suffices, for a log of 100 million events has many such arrays."""
    count = len(log.item_codes)
    return np.arange(count, dtype=np.int32 if count <= np.iinfo(np.int32).max else np.int64)


def user_ranges(log: Log) -> tuple[Ints, Ints]:
    """For each user the position of the first event, and one past the last; shapes (users,)."""
    counts = np.bincount(log.user_codes, minlength=log.n_users)
    end = np.cumsum(counts)
    return end - counts, end


def user_bounds(log: Log) -> tuple[Ints, Ints]:
    """For each event the position of its user's first event, and one past the last; shapes (events,)."""
    first, end = user_ranges(log)
    kind, counts = positions(log).dtype, end - first
    return np.repeat(first.astype(kind), counts), np.repeat(end.astype(kind), counts)


def rows_of(log: Log, targets: Ints, first: Ints, max_history: int) -> Rows:
    """Rows whose targets are the events `targets`, with at most `max_history` events of history; `first` as in `user_bounds`."""
    begin = first[targets]
    return Rows(
        row=targets,
        user=log.user_codes[targets],
        first=begin,
        start=np.maximum(begin, targets - max_history),
        stop=targets,
        target=targets,
    )


def check_log(log: Log, max_history: int, *, key: str = "max_history") -> None:
    """Raise ValueError for a history of no items, or a catalogue that cannot be ranked."""
    if max_history < 1:
        raise ValueError(f"`{key}` is in items and must be at least 1, got {max_history}.")
    if log.n_items < 2:
        raise ValueError(f"{log.source}: the catalogue holds {log.n_items} item; ranking needs at least 2.")
