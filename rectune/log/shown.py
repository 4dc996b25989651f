"""Items that were shown to users, beside those that they took."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectune.log.arrays import read_array

COLUMNS: dict[str, type] = {"user": np.int32, "item": np.int32, "time": np.float64}


@dataclass(frozen=True, eq=False)
class Shown:
    """What was shown to whom, and when: codes of users and items as in the log, and times in the unit of its events, shapes (shown,); user after
    user, oldest first within a user."""

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    time: NDArray[np.float64]
    source: str

    def __len__(self) -> int:
        return len(self.user)

    def check(self, users: int, items: int) -> None:
        """Raise ValueError, naming `source` and the first row that is wrong, for codes that a log of so many users and items does not have, and for another order."""
        for name, values in (("item", self.item), ("time", self.time)):
            if values.shape != self.user.shape or values.ndim != 1:
                raise ValueError(
                    f"{self.source}: of what was shown `{name}` has the shape {values.shape} and `user` {self.user.shape}."
                )
        for name, values, most in (("user", self.user, users), ("item", self.item, items)):
            if (bad := (values < 0) | (values >= most)).any():
                raise ValueError(
                    f"{self.source}: of what was shown `{name}` is not in 0 … {most - 1} in row {int(bad.argmax())}."
                )
        back = self.user[1:] < self.user[:-1]
        back |= (self.user[1:] == self.user[:-1]) & ~(self.time[1:] >= self.time[:-1])
        if back.any():
            raise ValueError(
                f"{self.source}: what was shown must stand user after user, oldest first, but row {int(back.argmax()) + 1} does not."
            )

    def save(self, folder: Path) -> None:
        """Write a file a column into an existing folder."""
        for name in COLUMNS:
            np.save(folder / f"shown-{name}.npy", getattr(self, name))

    @staticmethod
    def load(folder: Path, source: str) -> Shown | None:
        """Map what `save` wrote; None where nothing was. Raises ValueError for a file that is missing or no array."""
        found: dict[str, Any] = {}
        for name, kind in COLUMNS.items():
            file = folder / f"shown-{name}.npy"
            if not file.exists():
                if name == "user":
                    return None
                raise ValueError(f"{source}: {folder} holds no `{file.name}`.")
            found[name] = read_array(file, source).astype(kind, copy=False)
        return Shown(**found, source=source)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where the rows of each user begin, and the end of the last that was shown something, (users + 1,)."""
        users = int(self.user[-1]) + 1 if len(self) else 0
        return np.searchsorted(self.user, np.arange(users + 1))


@dataclass(frozen=True, eq=False)
class ShownBefore:
    """What the user of each row was shown until its target; `times`: those of the log's events. `user`, `first` and `target` as in `Rows`."""

    shown: Shown
    times: NDArray[np.float64]
    user: NDArray[np.integer]
    first: NDArray[np.integer]
    target: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.user)

    def __call__(self, i: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Item codes, with repeats: those shown after the last event that is older than the target, until the time of the target, and those shown
        before. Nothing that was shown later is among them."""
        user, target = int(self.user[i]), int(self.target[i])
        if user + 1 >= len(self.shown.ends):
            return (np.zeros(0, dtype=np.int32),) * 2
        begin, end = self.shown.ends[user : user + 2]
        then, events = self.times[target], self.times[int(self.first[i]) : target]
        older = int(np.searchsorted(events, then))
        when = self.shown.time[begin:end]
        stop = begin + int(np.searchsorted(when, then, side="right"))
        since = begin + int(np.searchsorted(when, events[older - 1], side="right")) if older else begin
        return self.shown.item[since:stop], self.shown.item[begin:since]

    @property
    def nothing(self) -> bool:
        """Whether no row's user was shown anything until its target."""
        return all(not len(a) and not len(b) for a, b in map(self, range(len(self))))

    def take(self, positions: NDArray[np.integer]) -> ShownBefore:
        """Those of the rows at `positions`, in that order."""
        return replace(self, user=self.user[positions], first=self.first[positions], target=self.target[positions])
