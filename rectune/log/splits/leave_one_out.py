"""Leave one out: the last event of each user is the test."""

from __future__ import annotations

import numpy as np

from rectune.log.log import Log
from rectune.log.split import Split, check_log, positions, rows_of, user_bounds, user_ranges


def leave_one_out(log: Log, *, max_history: int = 20) -> Split:
    """Hold out the last event of each user for the test and the one before it for validation.

    Users with fewer than three events only train. `max_history` is in items; the oldest go first.
    Raises ValueError when no user has three events.
    """
    check_log(log, max_history)
    first, _ = user_bounds(log)
    position = positions(log)
    begin, end = user_ranges(log)
    long = end - begin >= 3
    if not long.any():
        raise ValueError(f"{log.source}: no user has 3 events, so none can be held out. Use `by_time` or a longer log.")
    test, validation = end[long] - 1, end[long] - 2
    train = np.ones(len(position), dtype=bool)
    train[test] = train[validation] = False
    follows = train.copy()
    follows[begin[end > begin]] = False
    return Split(
        log=log,
        train=rows_of(log, position[follows], first, max_history),
        validation=rows_of(log, position[validation], first, max_history),
        test=rows_of(log, position[test], first, max_history),
        train_events=position[train],
        notes={
            "rule": "leave_one_out",
            "max_history": max_history,
            "users_only_in_training": log.n_users - len(test),
        },
    )
