"""The log: who touched what, when, and what the items are."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.log.arrays import read_array
from rectune.log.shown import Shown

COLUMNS: dict[str, type] = {"user": np.int32, "item": np.int32, "time": np.float64, "rating": np.float32}


class LogWarning(UserWarning):
    """Something about a log that is probably a mistake; turn off with `warnings.simplefilter("ignore", LogWarning)`."""


@dataclass(frozen=True, eq=False)
class Log:
    """Events and items, ids encoded to int32; a log equals itself alone.

    `user_codes`, `item_codes` (int32), and where known `times` (float64, the source's own unit) and `ratings` (float32): one value
    an event, shapes (events,), user after user, oldest first within a user. Of a log that was loaded they are mapped from its
    files, so that only what is read lies in memory.
    `items`: row = item code; `item_id`, `title`, and every other text column of the source.
    `users`: the source's user ids, row = user code.
    `cut`: for data that comes already split, one row an example: `part`, `user`, and offsets into the events
    `start`, `stop`, `target` (history = events[start:stop]), and where the rows offer items to choose from, `candidates`, lists of
    item codes; else None.
    `shown`: items that users were shown, beside those that they took; None where the log does not tell.
    """

    user_codes: NDArray[np.int32]
    item_codes: NDArray[np.int32]
    items: pl.DataFrame
    users: pl.Series
    source: str
    times: NDArray[np.float64] | None = None
    ratings: NDArray[np.float32] | None = None
    cut: pl.DataFrame | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    shown: Shown | None = None

    @staticmethod
    def encoded(
        events: Mapping[str, Any] | Path,
        items: pl.DataFrame | Sequence[str],
        users: pl.Series | Sequence[str],
        *,
        source: str = "encoded log",
        shown: Shown | None = None,
    ) -> Log:
        """Make a log of events that are encoded already.

        `events`: arrays by the names `user`, `item` and, where known, `time` and `rating`, or a folder that holds them as `user.npy`
        and so on, which are mapped, not read. User and item are whole numbers: positions in `users` and in `items`. Events stand
        user after user, oldest first. `items`: a table with `item_id` and `title`, or the ids alone, which are the titles then.
        `shown`: what users were shown, where that is known; it needs `time`.
        Raises ValueError where something of this does not hold, naming `source` and the first event that is wrong.
        """
        found = _mapped(events, source) if isinstance(events, Path) else {k: np.asarray(v) for k, v in events.items()}
        table = items if isinstance(items, pl.DataFrame) else pl.DataFrame({"item_id": items, "title": items})
        table = table if "title" in table.columns else table.with_columns(title=pl.col("item_id"))
        names = pl.Series("user_id", users, dtype=pl.String)
        columns = _checked(found, {"user": len(names), "item": table.height}, source)
        for what, ids in (("user", names), ("item", table["item_id"])):
            if (twice := ids.is_duplicated()).any():
                raise ValueError(f"{source}: the {what} `{ids[int(twice.arg_max() or 0)]}` is listed twice.")
        if shown is not None:
            if "time" not in columns:
                raise ValueError(f"{source}: what was shown has times, and the events have none (`time`).")
            shown.check(len(names), table.height)
        return Log(
            columns["user"], columns["item"], table, names, source, columns.get("time"), columns.get("rating"), shown=shown
        )  # fmt: skip

    @property
    def n_users(self) -> int:
        """How many users there are."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """How many items the catalogue holds."""
        return self.items.height

    @cached_property
    def n_events(self) -> int:
        """How many events there are; in data that comes already split, where each row repeats its history, each counted once."""
        if self.cut is None:
            return len(self.item_codes)
        rows = self.cut.select("user", length=pl.col("stop") - pl.col("start"))
        each = rows.group_by("user").agg(pl.col("length").min(), pl.len().alias("targets"))
        return int((each["length"] + each["targets"]).sum())

    @property
    def interactions(self) -> pl.DataFrame:
        """The events as a table: `user`, `item` and, where known, `time` and `rating`."""
        return pl.DataFrame(self._columns())

    def facts(self) -> dict[str, Any]:
        """What a report says of it: how many users, items and events, and the notes."""
        return {"users": self.n_users, "items": self.n_items, "events": self.n_events, **self.notes}

    def save(self, folder: Path) -> None:
        """Write the log into an existing folder: a `.npy` file a column of the events, Parquet files of items and users."""
        for name, values in self._columns().items():
            np.save(folder / f"{name}.npy", values)
        self.items.write_parquet(folder / "items.parquet")
        self.users.to_frame("user_id").write_parquet(folder / "users.parquet")
        if self.cut is not None:
            self.cut.write_parquet(folder / "cut.parquet")
        if self.shown is not None:
            self.shown.save(folder)
        (folder / "log.json").write_text(json.dumps({"source": self.source, "notes": self.notes}, indent=1))

    @staticmethod
    def load(folder: Path) -> Log:
        """Read what `save` wrote; the events are mapped."""
        about = json.loads((folder / "log.json").read_text())
        cut = folder / "cut.parquet"
        older = folder / "interactions.parquet"  # a log of rectune 0.1
        if older.exists():
            columns = {column.name: column.to_numpy() for column in pl.read_parquet(older)}
        else:
            columns = _mapped(folder, about["source"])
        return Log(
            user_codes=columns["user"],
            item_codes=columns["item"],
            items=pl.read_parquet(folder / "items.parquet"),
            users=pl.read_parquet(folder / "users.parquet")["user_id"],
            source=about["source"],
            times=columns.get("time"),
            ratings=columns.get("rating"),
            cut=pl.read_parquet(cut) if cut.exists() else None,
            notes=about["notes"],
            shown=Shown.load(folder, about["source"]),
        )

    def _columns(self) -> dict[str, NDArray[Any]]:
        found = {"user": self.user_codes, "item": self.item_codes, "time": self.times, "rating": self.ratings}
        return {name: values for name, values in found.items() if values is not None}


class Builder(Protocol):
    """A data builder; it is given the recipe's seed where it names it."""

    def __call__(self, *, seed: int = ..., **keys: Any) -> Log:
        """Read a source."""


def warn(message: str, notes: dict[str, Any] | None) -> None:
    """Warn, and keep what was said with the log."""
    if notes is not None:
        notes.setdefault("warnings", []).append(message)
    warnings.warn(message, LogWarning, stacklevel=3)


def _mapped(folder: Path, source: str) -> dict[str, NDArray[Any]]:
    """The columns of a folder. Raises ValueError where one is missing or is no array."""
    found = {}
    for name in COLUMNS:
        file = folder / f"{name}.npy"
        if file.exists():
            found[name] = read_array(file, source)
    for name in ("user", "item"):
        if name not in found:
            raise ValueError(f"{source}: {folder} holds no `{name}.npy`.")
    return found


def _checked(events: Mapping[str, NDArray[Any]], sizes: Mapping[str, int], source: str) -> dict[str, NDArray[Any]]:
    """The columns in their types; a mapped one that has its type stays mapped. Raises ValueError naming the first wrong event."""
    if "user" not in events or "item" not in events:
        raise ValueError(f"{source}: events need `user` and `item`; there is {', '.join(events) or 'nothing'}.")
    if unknown := [name for name in events if name not in COLUMNS]:
        raise ValueError(f"{source}: an event has {', '.join(COLUMNS)}, but no `{unknown[0]}`.")
    shape = events["user"].shape
    for name, values in events.items():
        if values.ndim != 1 or values.shape != shape or not len(values):
            raise ValueError(
                f"{source}: `{name}` has the shape {values.shape} and `user` {shape}; both must be (events,)."
            )
        if values.dtype.kind not in ("iu" if name in sizes else "iuf"):
            raise ValueError(
                f"{source}: `{name}` holds {values.dtype}, but it must be {'whole numbers' if name in sizes else 'numbers'}."
            )
    for name, count in sizes.items():
        _refuse(
            (events[name] < 0) | (events[name] >= count), events[name], f"`{name}` is not in 0 … {count - 1}", source
        )
    users = events["user"]
    _refuse(_falls(users), users, "events must stand user after user, but `user` falls", source)
    for name in ("time", "rating"):
        if name in events:
            _refuse(~np.isfinite(events[name]), events[name], f"`{name}` is no finite number", source)
    if "time" in events:
        times = events["time"]
        back = _falls(times) & np.append(False, users[1:] == users[:-1])
        _refuse(back, times, "events of a user must stand oldest first, but `time` falls", source)
    return {
        name: values if values.dtype == COLUMNS[name] else values.astype(COLUMNS[name])
        for name, values in events.items()
    }


def _falls(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value is less than the one before; a difference of unsigned numbers would never be."""
    return np.append(False, values[1:] < values[:-1])


def _refuse(bad: NDArray[np.bool_], values: NDArray[Any], what: str, source: str) -> None:
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(f"{source}: {what} at event {at} ({values[at]}).")
