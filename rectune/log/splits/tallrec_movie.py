"""TALLRec's own rule for MovieLens 100K."""

from __future__ import annotations

import numpy as np

from rectune.log.log import Log
from rectune.log.row_parts import refuse_empty, split_of_rows
from rectune.log.split import PARTS, Split, check_log, positions, user_bounds


def tallrec_movie(
    log: Log, *, history: int = 10, rows: int = 10_000, validation: float = 0.1, test: float = 0.1
) -> Split:
    """TALLRec's rule for MovieLens 100K: the last `rows` windows of a list that goes user after user, cut by position.

    Every event with `history` earlier ones of its user is a window; users stand in the order of their first line in the
    source, events of a user in time order. On MovieLens 100K this gives the 10,000 rows that its authors ship. It is
    neither a split in time nor one by users: one user stands on both sides of each cut, and the parts' times overlap.
    Source: Bao et al., RecSys 2023, `preprocess_movie.py`. Raises ValueError when there are too few windows.
    """
    check_log(log, history, key="history")
    first, _ = user_bounds(log)
    position = positions(log)
    whole = position[position - first >= history]
    if len(whole) < rows:
        raise ValueError(
            f"{log.source}: it has {len(whole)} events with {history} earlier ones of their user, but `rows` asks for {rows}."
        )
    chosen = whole[-rows:]
    ends = [round(rows * (1 - validation - test)), round(rows * (1 - test)), rows]
    parts = dict(zip(PARTS, np.split(chosen, ends[:-1]), strict=True))
    refuse_empty(log, parts)
    notes = {"rule": "tallrec_movie", "max_history": history, "sound": "no: neither split in time nor by users"}
    return split_of_rows(log, parts, first, history, notes)
