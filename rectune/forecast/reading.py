"""What reading a log takes of this machine's memory, known before it is read where its files tell how many rows they hold."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from rectune.log.cleaning import PIECE
from rectune.run.run import Run

# Measured by benchmarks/data.py with 1, 10 and 100 million rows with times and a user for ten of them: 0.3, 0.9 and 5.2 GB at the peak.
LIBRARIES, AN_EVENT, A_TEXT = 0.25e9, 48, 50  # the last for each row of one piece, the only one that is text


@dataclass(frozen=True)
class Reading:
    """`rows` of the source, and `exact`, whether they are counted or told from a part; `peak`: bytes."""

    rows: int
    exact: bool
    peak: int


def reading_of(run: Run) -> Reading | None:
    """What the recipe's builder says of its source by a function `size_of(**keys) -> (rows, exact) | None` beside it; None where it says nothing."""
    call = run.asked.data
    size_of = getattr(sys.modules.get(call.function.__module__), "size_of", None)
    try:
        found = None if size_of is None else size_of(**call.arguments)
    except (ValueError, OSError):
        return None  # what is wrong with the source is told when it is read
    if found is None:
        return None
    rows, exact = found
    return Reading(rows, exact, int(LIBRARIES + rows * AN_EVENT + min(rows, PIECE) * A_TEXT))
