"""Splits: the log cut into histories and targets, no future in any history."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.log.log import Log

Ints = NDArray[np.int64]
Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Rows:
    """Rows of one part of a split, as offsets into the events of the log; all arrays have shape (rows,), int64.

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
        return self.log.item_codes[rows.start[i] : rows.stop[i]]

    def seen(self, rows: Rows, i: int) -> NDArray[np.int32]:
        """Every item that the user of row i touched before the target, sorted, without repeats."""
        return np.unique(self.log.item_codes[rows.first[i] : rows.stop[i]])

    def targets(self, rows: Rows) -> NDArray[np.int32]:
        """Target item of each row, shape (rows,)."""
        return self.log.item_codes[rows.target]

    def train_sequences(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """User and item of each training event, user after user, oldest first; shapes (training events,)."""
        return self.log.user_codes[self.train_events], self.log.item_codes[self.train_events]

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


def leave_one_out(log: Log, *, max_history: int = 20) -> Split:
    """Hold out the last event of each user for the test and the one before it for validation.

    Users with fewer than three events only train. `max_history` is in items; the oldest go first.
    Raises ValueError when no user has three events.
    """
    _check(log, max_history)
    first, end = user_bounds(log)
    position = np.arange(log.interactions.height)
    left = end - position  # events of the same user from here on, this one included
    long = (end - first) >= 3
    if not long.any():
        raise ValueError(f"{log.source}: no user has 3 events, so none can be held out. Use `by_time` or a longer log.")
    train = ~long | (left > 2)
    return Split(
        log=log,
        train=rows_of(log, position[train & (position > first)], first, max_history),
        validation=rows_of(log, position[long & (left == 2)], first, max_history),
        test=rows_of(log, position[long & (left == 1)], first, max_history),
        train_events=position[train],
        notes={
            "rule": "leave_one_out",
            "max_history": max_history,
            "users_only_in_training": int(log.n_users - (long & (left == 1)).sum()),
        },
    )


def by_time(
    log: Log, *, max_history: int = 20, validation: float = 0.1, test: float = 0.1, min_history: int = 1
) -> Split:
    """Cut the whole log at two moments: the last `test` share of events, and the `validation` share before it.

    Every event after a cut is a row whose history is what its user did before it, so no history holds anything
    later than its target. Events at the very moment of a cut fall after it. Rows with fewer than `min_history`
    earlier events are left out and counted in the notes.
    Raises ValueError where the log has no times, or a part is empty.
    """
    _check(log, max_history)
    times = log.times
    if times is None:
        raise ValueError(f"{log.source}: `by_time` needs times, and this log has none. Use `leave_one_out`.")
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise ValueError(
            f"`validation` ({validation}) and `test` ({test}) must be shares above 0 that sum to less than 1."
        )
    ordered = np.sort(times)
    cuts = [ordered[int(len(ordered) * share)] for share in (1 - validation - test, 1 - test)]
    if ordered[0] == cuts[0] or cuts[0] == cuts[1]:
        raise ValueError(f"{log.source}: too many events share one time to cut it at {validation} and {test}.")
    first, _ = user_bounds(log)
    position = np.arange(len(times))
    enough = (position - first) >= max(min_history, 0)
    stage = np.searchsorted(np.array(cuts), times, side="right")  # 0 train, 1 validation, 2 test
    parts = {name: position[(stage == i) & enough] for i, name in enumerate(PARTS)}
    parts["train"] = parts["train"][position[parts["train"]] > first[parts["train"]]]
    for name in ("validation", "test"):
        if len(parts[name]) == 0:
            raise ValueError(
                f"{log.source}: no row in `{name}`: no event there has {min_history} earlier ones of its user."
            )
    notes = {
        "rule": "by_time",
        "max_history": max_history,
        "cuts": [float(c) for c in cuts],
        "rows_left_out": int(((stage > 0) & ~enough).sum()),
    }
    rows = {name: rows_of(log, events, first, max_history) for name, events in parts.items()}
    return Split(log=log, train_events=position[stage == 0], notes=notes, **rows)


def given(log: Log, *, max_history: int = 20) -> Split:
    """Use the split that the data came with.

    Training events are those of the training rows, each counted once. Raises ValueError when there is none.
    """
    _check(log, max_history)
    if log.cut is None:
        raise ValueError(f"{log.source}: this data does not come split. Use `leave_one_out` or `by_time`.")
    parts = {}
    for name in PARTS:
        cut = log.cut.filter(pl.col("part") == name)
        start, stop = cut["start"].to_numpy(), cut["stop"].to_numpy()
        recent = np.maximum(start, stop - max_history)
        rows = cut["row"].to_numpy()
        parts[name] = Rows(rows, cut["user"].cast(pl.Int64).to_numpy(), start, recent, stop, cut["target"].to_numpy())
    if len(parts["train"]) == 0 or len(parts["test"]) == 0:
        raise ValueError(f"{log.source}: the given split has no rows in `train` or none in `test`.")
    return Split(
        log=log,
        train_events=_given_train_events(parts["train"]),
        notes={"rule": "given", "max_history": max_history},
        **parts,
    )


def _given_train_events(train: Rows) -> Ints:
    """First row of each user with its whole history, then only the targets: sliding windows repeat the rest."""
    order = np.lexsort((train.row, train.user))
    opens = np.ones(len(order), dtype=bool)
    opens[1:] = train.user[order][1:] != train.user[order][:-1]
    events: list[Ints] = []
    for i, new in zip(order, opens, strict=True):
        if new:
            events.append(np.arange(train.first[i], train.stop[i]))
        events.append(train.target[i : i + 1])
    return np.concatenate(events)


def windows(split: Split, *, length: int) -> Rows:
    """Cover the training events of each user with windows of at most `length` + 1 events that share one event.

    Each window is a row whose target is its last event: with the loss on all events of a window, every training
    target is trained exactly once.
    """
    train = split.train
    first = train.first
    last = np.ones(len(train), dtype=bool)
    last[:-1] = (train.user[1:] != train.user[:-1]) | (first[1:] != first[:-1])
    ends = np.flatnonzero(last)
    spans: list[tuple[int, int, int]] = []  # position among the training rows, start, target
    for i in ends:
        for start in range(int(first[i]), int(train.target[i]), length):
            spans.append((int(i), start, min(start + length, int(train.target[i]))))
    at, begin, target = np.array(spans, dtype=np.int64).reshape(-1, 3).T
    return Rows(row=target, user=train.user[at], first=first[at], start=begin, stop=target, target=target)


def evenly(count: int, most: int) -> Ints:
    """Up to `most` of the positions 0 … count - 1, evenly spread, first and last included: a sample without chance."""
    return np.unique(np.linspace(0, count - 1, num=max(min(most, count), 0), dtype=np.int64))


def user_bounds(log: Log) -> tuple[Ints, Ints]:
    """For each event the position of its user's first event, and one past the last; shapes (events,)."""
    counts = np.bincount(log.user_codes, minlength=log.n_users)
    end = np.cumsum(counts)
    return (end - counts)[log.user_codes], end[log.user_codes]


def rows_of(log: Log, targets: Ints, first: Ints, max_history: int) -> Rows:
    """Rows whose targets are the events `targets`, with at most `max_history` events of history; `first` as in `user_bounds`."""
    begin = first[targets]
    return Rows(
        row=targets,
        user=log.user_codes[targets].astype(np.int64),
        first=begin,
        start=np.maximum(begin, targets - max_history),
        stop=targets,
        target=targets,
    )


def _check(log: Log, max_history: int) -> None:
    if max_history < 1:
        raise ValueError(f"`max_history` is in items and must be at least 1, got {max_history}.")
    if log.n_items < 2:
        raise ValueError(f"{log.source}: the catalogue holds {log.n_items} item; ranking needs at least 2.")
