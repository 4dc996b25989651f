"""Per-user bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rectune.runtime.room import Matrix, Room

Floats = NDArray[np.float64]
LEVEL = 0.95
CHUNK = 4_000_000  # draws that are floats at a time: 32 MB, whatever the number of users


class Bootstrap:
    """Resamples users with replacement, the same samples for everything it is asked about (so differences pair up).

    Rows of one user stay together; of a single user there is no interval. `drawn`: how often each user is, (samples, users), in a file where `room` is too small. Samples in which a figure is
    not defined are left out of its interval. Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13
    (percentile interval).
    """

    def __init__(self, users: NDArray[np.int64], *, samples: int = 1000, seed: int = 0, room: Room = Room()) -> None:  # noqa: B008  frozen
        self.users, self.position = np.unique(users, return_inverse=True)
        self.drawn = _draw(len(self.users), samples, seed, room)

    @property
    def weights(self) -> NDArray[np.uint8]:
        """How often each user is drawn, (samples, users), all in memory."""
        return np.asarray(self.drawn.rows(np.arange(len(self.drawn))))

    def mean(self, values: Floats) -> tuple[float, float, float]:
        """Mean of one value a row (NaN left out) and its 95 % interval: (mean, low, high)."""
        known = ~np.isnan(values)
        sums = np.bincount(self.position, weights=np.where(known, values, 0.0), minlength=len(self.users))
        counts = np.bincount(self.position, weights=known.astype(np.float64), minlength=len(self.users))
        if counts.sum() == 0:
            return float("nan"), float("nan"), float("nan")
        total, count = self._weighted(np.stack([sums, counts], axis=1)).T  # (samples,) each
        drawn = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        return (float(sums.sum() / counts.sum()), *self._interval(drawn))

    def statistic(self, function: Callable[[NDArray[np.int64]], float]) -> tuple[float, float, float]:
        """Any statistic of row positions, such as an AUC or a difference of two: (value, low, high)."""
        order = np.argsort(self.position, kind="stable")
        sizes = np.bincount(self.position, minlength=len(self.users))
        starts = np.cumsum(sizes) - sizes
        drawn = []
        for i in range(len(self.drawn)):
            weights = self.drawn.rows(np.array([i]))[0]
            picked = np.repeat(np.arange(len(self.users)), weights)
            lengths = sizes[picked]
            within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            drawn.append(function(order[np.repeat(starts[picked], lengths) + within]))
        return (function(np.arange(len(self.position))), *self._interval(np.array(drawn)))

    def _interval(self, drawn: Floats) -> tuple[float, float]:
        known = drawn[~np.isnan(drawn)]
        if len(known) == 0 or len(self.users) == 1:
            return float("nan"), float("nan")
        tail = (1 - LEVEL) / 2
        return float(np.quantile(known, tail)), float(np.quantile(known, 1 - tail))

    def _weighted(self, columns: Floats) -> Floats:
        """Sums over users of (users, columns), each user as often as drawn: (samples, columns)."""
        step = max(1, CHUNK // max(len(self.users), 1))
        each = (np.arange(a, min(a + step, len(self.drawn))) for a in range(0, len(self.drawn), step))
        parts = [self.drawn.rows(which).astype(np.float64) @ columns for which in each]
        return np.concatenate(parts) if parts else np.zeros((0, columns.shape[1]))


def _draw(count: int, samples: int, seed: int, room: Room) -> Matrix:
    """How often each of `count` users is drawn, (samples, users).

    A byte each: 30 MB for 1,000 samples of 30,000 users, an eighth of what floats take. A user is drawn once on average,
    so of more users than 255 none is drawn 256 times (the chance is below 1 / 256!).
    """
    rng = np.random.default_rng(seed)
    weights = Matrix(samples, count, np.uint8, room)
    for i in range(samples if count else 0):
        weights.window(i, i + 1)[0] = np.bincount(rng.integers(0, count, count), minlength=count)
    return weights
