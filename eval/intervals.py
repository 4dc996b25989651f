"""Per-user bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95


class Bootstrap:
    """Resamples users with replacement, the same samples for everything it is asked about (so differences pair up).

    Rows of one user stay together. Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13
    (percentile interval).
    """

    def __init__(self, users: NDArray[np.int64], *, samples: int = 1000, seed: int = 0) -> None:
        self.users, self.position = np.unique(users, return_inverse=True)
        self.samples = samples
        self._rng_seed = seed

    def mean(self, values: Floats) -> tuple[float, float, float]:
        """Mean of one value a row (NaN left out) and its 95 % interval: (mean, low, high)."""
        known = ~np.isnan(values)
        sums = np.bincount(self.position, weights=np.where(known, values, 0.0), minlength=len(self.users))
        counts = np.bincount(self.position, weights=known.astype(np.float64), minlength=len(self.users))
        if counts.sum() == 0:
            return float("nan"), float("nan"), float("nan")
        drawn = [sums @ w / (counts @ w) if counts @ w else np.nan for w in self._weights()]
        return (float(sums.sum() / counts.sum()), *_interval(np.array(drawn)))

    def statistic(self, function: Callable[[NDArray[np.int64]], float]) -> tuple[float, float, float]:
        """Any statistic of row positions, such as an AUC or a difference of two: (value, low, high)."""
        order = np.argsort(self.position, kind="stable")
        ends = np.cumsum(np.bincount(self.position, minlength=len(self.users)))
        starts = np.concatenate([[0], ends[:-1]])
        drawn = []
        for weights in self._weights():
            picked = np.repeat(np.arange(len(self.users)), weights.astype(np.int64))
            rows = [order[starts[u] : ends[u]] for u in picked]
            drawn.append(function(np.concatenate(rows)))
        return (function(np.arange(len(self.position))), *_interval(np.array(drawn)))

    def _weights(self) -> Iterator[Floats]:
        """How often each user is drawn, one array a sample."""
        rng = np.random.default_rng(self._rng_seed)
        count = len(self.users)
        for _ in range(self.samples):
            yield np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)


def _interval(drawn: Floats) -> tuple[float, float]:
    known = drawn[~np.isnan(drawn)]
    if len(known) == 0:
        return float("nan"), float("nan")
    tail = (1 - LEVEL) / 2
    return float(np.quantile(known, tail)), float(np.quantile(known, 1 - tail))
