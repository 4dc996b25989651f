"""Histories from outside the log, as a split that every task renders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rectune.log.split import Rows, Split

if TYPE_CHECKING:
    from collections.abc import Sequence

import polars as pl


def history_split(split: Split, histories: list[list[int]], users: Sequence[str] | None = None) -> Split:
    """Return a split whose test rows are the given histories (item codes, oldest first); their targets mean nothing.

    `users`: the id of whoever each history is of, as the log writes it, where that is known; it decides the user token.

    For recommending outside a log: every task renders such rows like any others.
    """
    lengths = np.array([len(h) for h in histories], dtype=np.int64)
    target = np.cumsum(lengths + 1) - 1
    first = target - lengths
    longest = split.notes.get("max_history") or int(max((split.test.stop - split.test.start).max(), 1))
    start = np.maximum(first, target - longest)  # as long as what the model was tuned on
    events = {
        "user": np.repeat(np.arange(len(histories), dtype=np.int32), lengths + 1),
        "item": np.array([i for h in histories for i in [*h, 0]], dtype=np.int32),
    }
    if split.log.ratings is not None:
        best = float(split.log.ratings.max())  # what is given as a history counts as liked
        events["rating"] = np.array([r for h in histories for r in [*[best] * len(h), 0.0]], dtype=np.float32)
    log = type(split.log)(
        interactions=pl.DataFrame(events),
        items=split.log.items,
        users=pl.Series([""] * len(histories) if users is None else list(users), dtype=pl.String),
        source="the given histories",
    )
    number = np.arange(len(histories), dtype=np.int64)
    rows = Rows(row=number, user=number, first=first, start=start, stop=target, target=target)
    none = rows.take(np.zeros(0, dtype=np.int64))
    return Split(log=log, train=none, validation=none, test=rows, train_events=np.zeros(0, dtype=np.int64))
