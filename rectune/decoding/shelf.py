"""Which items may be listed, and what is known of them beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rectune.runtime.ragged import Ragged


@dataclass(frozen=True)
class Shelf:
    """Which items may be listed, and what is known of them beforehand. `allowed`: (items,) bool for all rows, or None;
    `hidden`: items of each row that must not be listed; `only`: items of each row that alone may be listed; None where
    there is no such rule. `prior`: positions of rows -> (rows, items) float32, log-probabilities up to a constant, added to the
    model's at every node of the search."""

    allowed: NDArray[np.bool_] | None = None
    hidden: Sequence[Sequence[int]] | None = None
    only: Sequence[Sequence[int]] | None = None
    prior: Callable[[NDArray[np.int64]], NDArray[np.float32]] | None = None

    def take(self, positions: NDArray[np.int64]) -> Shelf:
        """The same for the rows at `positions`, in that order."""
        hidden, only = (None if rule is None else [rule[i] for i in positions] for rule in (self.hidden, self.only))
        prior = self.prior
        return Shelf(self.allowed, hidden, only, None if prior is None else lambda which: prior(positions[which]))

    def among(self, candidates: Ragged | None) -> Shelf:
        """The same where each row may list some items alone: those of its `only` that are candidates; None changes nothing."""
        if candidates is None:
            return self
        lists = candidates.lists()
        if self.only is None:
            return replace(self, only=lists)
        kept = [sorted(set(some) & set(own)) for some, own in zip(lists, self.only, strict=True)]
        return replace(self, only=kept)


ALL = Shelf()
