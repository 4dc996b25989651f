"""The split that the data came with."""

from __future__ import annotations

import numpy as np
import polars as pl

from rectune.log.log import Log
from rectune.log.split import PARTS, Ints, Rows, Split, check_log


def given(log: Log, *, max_history: int = 20) -> Split:
    """Use the split that the data came with.

    Training events are those of the training rows, each counted once. Raises ValueError when there is none.
    """
    check_log(log, max_history)
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
