"""Items by the names that people use: ids or titles."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rectune.log.log import Log
from rectune.runtime.near import near

MOST = 5_000  # items among which near misses are looked for: a tenth of a second


class Catalogue:
    """The items of a log, found by `item_id` or `title` (the first of equal titles, with a warning)."""

    def __init__(self, log: Log, by: Literal["item_id", "title"] = "item_id") -> None:
        self._by = by
        self._codes = {name: code for code, name in reversed(list(enumerate(log.items[by].to_list())))}
        self._size = log.n_items
        self._ids = log.items["item_id"]
        self._several = Counter(log.items[by].to_list()) if by == "title" else Counter[str]()

    def codes(self, names: Sequence[str]) -> list[int]:
        """Item codes. Raises ValueError for a name that the catalogue does not hold, with near misses."""
        for name in names:
            if name not in self._codes:
                close = near(name, self._codes) if len(self._codes) < MOST else ""
                raise ValueError(f"the catalogue has no item with {self._by} `{name}`.{close}"[:400])
        for name in dict.fromkeys(names):
            if self._several[name] > 1:
                warnings.warn(
                    f"{self._several[name]} items are called `{name}`; the first, `{self._ids[self._codes[name]]}`, is taken. Ids tell them apart.",
                    stacklevel=3,
                )
        return [self._codes[name] for name in names]

    def those_known(self, names: Sequence[str]) -> list[int]:
        """The codes of those names that the catalogue holds, in their order."""
        return [self._codes[name] for name in names if name in self._codes]

    def known(self, names: Sequence[str]) -> set[int]:
        """The codes of those names that the catalogue holds."""
        return set(self.those_known(names))

    def allowed(self, allow: Sequence[str] | None, deny: Sequence[str]) -> NDArray[np.bool_] | None:
        """Which items may be listed, (items,), or None for all. Warns of names that the catalogue does not hold."""
        if allow is None and not deny:
            return None
        mask = np.full(self._size, allow is None)
        for what, names, value in (("allow", allow or (), True), ("deny", deny, False)):
            strange = [name for name in names if name not in self._codes]
            if strange:
                warnings.warn(
                    f"{len(strange)} of {len(names)} ids in `{what}` are not in the catalogue, `{strange[0]}` among them.",
                    stacklevel=3,
                )
            mask[[self._codes[name] for name in names if name in self._codes]] = value
        return mask
