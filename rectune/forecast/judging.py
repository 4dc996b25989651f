"""What baselines, prior and figures take of memory beside a model: `eval.memory`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectune.forecast.known import NotBuilt
from rectune.run.run import Run
from rectune.runtime.room import Matrix, Room


@dataclass(frozen=True)
class Judging:
    """`room`: what may be taken. `items`: of how many EASE has weights, None before the log is read and where there is no EASE; `weights`: their bytes."""

    room: Room
    items: int | None
    weights: int

    @property
    def in_memory(self) -> bool:
        """Whether EASE's weights lie in memory; else in a file."""
        return Matrix.fits(self.weights, self.room)


def judging_of(run: Run) -> Judging | None:
    """What `eval` takes; None where it has no key `memory`. Raises ValueError for a bound that is too small for the catalogue."""
    keys = run.asked.judged_by
    if "memory" not in keys:
        return None
    room = Room(keys["memory"])
    try:
        items = run.log.n_items
    except (NotBuilt, OSError):
        return Judging(room, None, 0)
    if "ease_items" not in keys:
        return Judging(room, None, 0)
    room.rows(items)
    seen = min(items, int(keys["ease_items"]))
    return Judging(room, seen, seen * seen * np.dtype(np.float64).itemsize)
