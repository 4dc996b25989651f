"""The whole log cut at two moments."""

from __future__ import annotations

import numpy as np

from rectune.log.log import Log
from rectune.log.split import PARTS, Split, check_log, positions, rows_of, user_bounds


def by_time(
    log: Log, *, max_history: int = 20, validation: float = 0.1, test: float = 0.1, min_history: int = 1
) -> Split:
    """Cut the whole log at two moments: the last `test` share of events, and the `validation` share before it.

    Every event after a cut is a row whose history is what its user did before it, so no history holds anything
    later than its target. Events at the very moment of a cut fall after it. Rows with fewer than `min_history`
    earlier events are left out and counted in the notes.
    Raises ValueError where the log has no times, or a part is empty.
    """
    check_log(log, max_history)
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
    position = positions(log)
    enough = (position - first) >= max(min_history, 0)
    stage = np.searchsorted(np.array(cuts), times, side="right")  # 0 train, 1 validation, 2 test
    parts = {name: position[(stage == i) & enough] for i, name in enumerate(PARTS)}
    parts["train"] = parts["train"][position[parts["train"]] > first[parts["train"]]]
    for name, events in parts.items():
        if len(events) == 0:
            raise ValueError(
                f"{log.source}: no row in `{name}`: no event there has {max(min_history, 1)} earlier ones of its user."
            )
    notes = {
        "rule": "by_time",
        "max_history": max_history,
        "cuts": [float(c) for c in cuts],
        "rows_left_out": int(((stage > 0) & ~enough).sum()),
    }
    rows = {name: rows_of(log, events, first, max_history) for name, events in parts.items()}
    return Split(log=log, train_events=position[stage == 0], notes=notes, **rows)
