"""Rating scales: the ratings that a model may answer with, and how they are written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rectune.log.log import Log
from rectune.log.split import Ints

MOST = 20  # more different values than this are measurements, not a scale
_NEAR = 1e-4  # ratings are float32


@dataclass(frozen=True)
class RatingScale:
    """The ratings that may be given, lowest first."""

    values: tuple[float, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """How each value is written: all with as many decimals as the finest needs ('3.0' beside '3.5')."""
        values = np.array(self.values)
        decimals = next(d for d in range(5) if d == 4 or np.abs(values - values.round(d)).max() < _NEAR)
        return tuple(f"{value:.{decimals}f}" for value in self.values)

    def positions(self, ratings: NDArray[np.float32], source: str) -> Ints:
        """Position of each rating on the scale. Raises ValueError naming `source` for one that is not on it."""
        values = np.array(self.values)
        nearest = np.searchsorted((values[1:] + values[:-1]) / 2, ratings)
        off = np.flatnonzero(np.abs(values[nearest] - ratings) > _NEAR)
        if len(off):
            raise ValueError(
                f"{source}: {len(off):,} of {len(ratings):,} ratings are none of the answers {', '.join(self.texts)}, "
                f"e.g. {ratings[off[0]]:g}; they run from {ratings.min():g} to {ratings.max():g}. Give `low`, `high` and "
                "`step` that cover them, or leave the three out to take the ratings of the log."
            )
        return nearest.astype(np.int64)


def scale_of(log: Log, *, low: float | None, high: float | None, step: float) -> RatingScale:
    """The scale from `low` to `high` by `step`, or, where neither is given, the different ratings of the log.

    Raises ValueError for a log without ratings, one with a single rating or too many, and bounds that make no scale.
    """
    if log.ratings is None:
        raise ValueError(f"{log.source}: `rating` needs ratings, and this log has none.")
    if low is None and high is None:
        return _found(log, log.ratings)
    if low is None or high is None:
        raise ValueError(f"`{'low' if low is None else 'high'}` is missing: give both `low` and `high`, or neither.")
    steps = round((high - low) / step) if step > 0 else 0
    if steps < 1 or abs(low + steps * step - high) > _NEAR:
        raise ValueError(
            f"`low` {low:g}, `high` {high:g} and `step` {step:g} make no scale: `step` must be above 0 and lead from "
            "`low` to `high` in whole steps."
        )
    return RatingScale(tuple(low + i * step for i in range(steps + 1)))


def _found(log: Log, ratings: NDArray[np.float32]) -> RatingScale:
    values = np.unique(ratings.astype(np.float64).round(4))
    if len(values) < 2:
        raise ValueError(f"{log.source}: every rating is {values[0]:g}, so there is nothing to tell apart.")
    if len(values) > MOST:
        raise ValueError(
            f"{log.source}: {len(values):,} different ratings from {values[0]:g} to {values[-1]:g} are too many to answer "
            f"with (at most {MOST}). Give `low`, `high` and `step`, or round the ratings in the log."
        )
    return RatingScale(tuple(values.tolist()))
