"""Histories from outside the log, as a split that every task renders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.log.log import Log
from rectune.log.split import Rows, Split

MOST = 20  # more different ratings than this are measurements, which no task answers with
Event = int | tuple[int, float]  # an item's code, or that and its rating


@dataclass(frozen=True)
class Outside:
    """What is known of histories from outside a log: its items, how long a history may be, and the different ratings of the log, lowest first
    (none for a log without)."""

    items: pl.DataFrame
    longest: int
    ratings: tuple[float, ...] = ()

    def split(
        self,
        histories: Sequence[Sequence[Event]],
        users: Sequence[str] | None = None,
        targets: Sequence[int] | None = None,
        candidates: Sequence[Sequence[int]] | None = None,
    ) -> Split:
        """A split whose test rows are the given histories, oldest first; an item without a rating counts as liked best.

        `users`: the id of whoever each history is of, as the log writes it, where that is known; it decides the user token. `targets`: items
        that the rows ask about; where they are not given the targets mean nothing. `candidates`: items that each row offers.
        """
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        target = np.cumsum(lengths + 1) - 1
        first = target - lengths
        asked = [0] * len(histories) if targets is None else targets
        pairs = [[event if isinstance(event, tuple) else (event, None) for event in history] for history in histories]
        items = [item for pair, last in zip(pairs, asked, strict=True) for item in (*(item for item, _ in pair), last)]
        events: dict[str, NDArray[Any]] = {
            "user": np.repeat(np.arange(len(histories), dtype=np.int32), lengths + 1),
            "item": np.array(items, dtype=np.int32),
        }
        names = [""] * len(histories) if users is None else list(users)
        if self.ratings:
            low, best = self.ratings[0], self.ratings[-1]
            given = [best if rating is None else rating for pair in pairs for _, rating in (*pair, (0, low))]
            # The log's different ratings stand behind, as events of nobody: a task may make its answers of them.
            events = {
                "user": np.append(events["user"], np.full(len(self.ratings), len(histories), dtype=np.int32)),
                "item": np.append(events["item"], np.zeros(len(self.ratings), dtype=np.int32)),
                "rating": np.array([*given, *self.ratings], dtype=np.float32),
            }
            names.append("")
        log = Log(
            user_codes=events["user"],
            item_codes=events["item"],
            ratings=events.get("rating"),
            items=self.items,
            users=pl.Series(names, dtype=pl.String),
            source="the given histories",
            cut=None if candidates is None else pl.DataFrame(
                {
                    "part": ["test"] * len(histories), "row": np.arange(len(histories)), "user": np.arange(len(histories), dtype=np.int32),
                    "start": first, "stop": target, "target": target,
                    "candidates": pl.Series([list(some) for some in candidates], dtype=pl.List(pl.Int32)),
                }
            ),
        )  # fmt: skip
        number = np.arange(len(histories), dtype=np.int64)
        start = np.maximum(first, target - self.longest)  # as long as what the model was tuned on
        rows = Rows(row=number, user=number, first=first, start=start, stop=target, target=target)
        none = rows.take(np.zeros(0, dtype=np.int64))
        return Split(log=log, train=none, validation=none, test=rows, train_events=np.zeros(0, dtype=np.int64))


def outside_of(split: Split) -> Outside:
    """What is known outside of a split's log."""
    longest = split.notes.get("max_history") or int(max((split.test.stop - split.test.start).max(), 1))
    ratings = () if split.log.ratings is None else tuple(np.unique(split.log.ratings).tolist())
    return Outside(split.log.items, longest, ratings if len(ratings) <= MOST else (ratings[0], ratings[-1]))


def event_less(items: pl.DataFrame) -> Split:
    """A split of items that nobody touched."""
    return Outside(items, 1).split([])
