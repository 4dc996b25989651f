"""The log: who touched what, when, and what the items are."""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

Repeats = Literal["keep", "first", "last"]
UNTITLED = "untitled"


class LogWarning(UserWarning):
    """Something about a log that is probably a mistake; turn off with `warnings.simplefilter("ignore", LogWarning)`."""


@dataclass(frozen=True)
class Log:
    """Events and items, ids encoded to int32.

    `interactions`: one row an event, user after user, oldest first within a user; columns `user`, `item` (int32
    codes), and where known `time` (float64, the source's own unit) and `rating` (float32).
    `items`: row = item code; `item_id`, `title`, and every other text column of the source.
    `users`: the source's user ids, row = user code.
    `cut`: for data that comes already split, one row an example: `part`, `user`, and offsets into the events
    `start`, `stop`, `target` (history = events[start:stop]); else None.
    Arrays of all events are made once: Polars copies a column that lies in several pieces whenever it is asked for it.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.Series
    source: str
    cut: pl.DataFrame | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def n_users(self) -> int:
        """How many users there are."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """How many items the catalogue holds."""
        return self.items.height

    @cached_property
    def user_codes(self) -> NDArray[np.int32]:
        """User of each event, shape (events,)."""
        return self.interactions["user"].to_numpy()

    @cached_property
    def item_codes(self) -> NDArray[np.int32]:
        """Item of each event, shape (events,)."""
        return self.interactions["item"].to_numpy()

    @cached_property
    def times(self) -> NDArray[np.float64] | None:
        """Time of each event, shape (events,), or None."""
        return self.interactions["time"].to_numpy() if "time" in self.interactions.columns else None

    @cached_property
    def ratings(self) -> NDArray[np.float32] | None:
        """Rating of each event, shape (events,), or None."""
        return self.interactions["rating"].to_numpy() if "rating" in self.interactions.columns else None

    def save(self, folder: Path) -> None:
        """Write the log as Parquet files into an existing folder."""
        self.interactions.write_parquet(folder / "interactions.parquet")
        self.items.write_parquet(folder / "items.parquet")
        self.users.to_frame("user_id").write_parquet(folder / "users.parquet")
        if self.cut is not None:
            self.cut.write_parquet(folder / "cut.parquet")
        (folder / "log.json").write_text(json.dumps({"source": self.source, "notes": self.notes}, indent=1))

    @staticmethod
    def load(folder: Path) -> Log:
        """Read what `save` wrote."""
        about = json.loads((folder / "log.json").read_text())
        cut = folder / "cut.parquet"
        return Log(
            interactions=pl.read_parquet(folder / "interactions.parquet"),
            items=pl.read_parquet(folder / "items.parquet"),
            users=pl.read_parquet(folder / "users.parquet")["user_id"],
            source=about["source"],
            cut=pl.read_parquet(cut) if cut.exists() else None,
            notes=about["notes"],
        )


def make_log(
    interactions: pl.DataFrame,
    items: pl.DataFrame | None = None,
    *,
    source: str,
    user_core: int = 0,
    item_core: int = 0,
    repeats: Repeats = "keep",
    warn_unordered: bool = True,
) -> Log:
    """Check, clean and encode raw tables into a `Log`.

    `interactions` needs `user` and `item` (any type, read as text) and may have `time` (number) and `rating`
    (number); without `time` the order of its rows is the order of events. `items` needs `item_id` and may have
    `title` and other columns; lists become one text joined by ', ', HTML entities are unescaped. Events are sorted
    by user and time; events of one user with equal times keep the order of the rows. The same user, item and time
    twice is one event. `user_core` and `item_core` remove users and items with fewer events, to the fixed point; with
    `item_core` 0 items that nobody touched stay in the catalogue.
    Raises ValueError naming `source` for missing columns, nulls, NaN or non-numeric times and ratings, and a log
    that is or becomes empty. Warns once (`LogWarning`) for each thing that is probably a mistake.
    """
    table = _checked_interactions(interactions, source)
    table, notes = _without_duplicates(table, source)
    table = _in_order(table, source, warn=warn_unordered)
    if repeats != "keep":
        table = table.unique(["user", "item"], keep=repeats, maintain_order=True)
    table = k_core(table, user_core=user_core, item_core=item_core)
    if table.is_empty():
        raise ValueError(f"{source}: no event is left at user_core={user_core}, item_core={item_core}. Lower them.")
    catalogue = _catalogue(table, items, source, everything=item_core <= 0, notes=notes)
    return _encode(table, catalogue, source, notes)


def _checked_interactions(table: pl.DataFrame, source: str) -> pl.DataFrame:
    for column in ("user", "item"):
        if column not in table.columns:
            raise ValueError(f"{source}: the log has no column `{column}`. It has: {', '.join(table.columns)}.")
    if table.is_empty():
        raise ValueError(f"{source}: the log is empty.")
    for column in ("user", "item", "time", "rating"):
        if column in table.columns and (nulls := table[column].is_null()).any():
            first = int(nulls.arg_true()[0]) + 1
            raise ValueError(f"{source}: `{column}` is empty in {nulls.sum()} rows, the first is data row {first}.")
    keep = [pl.col("user").cast(pl.String), pl.col("item").cast(pl.String)]
    for column, kind in (("time", pl.Float64), ("rating", pl.Float32)):
        if column not in table.columns:
            continue
        keep.append(as_number(table[column], f"{source}: `{column}`").cast(kind).alias(column))  # type: ignore[arg-type]
    return table.select(keep)


def as_number(column: pl.Series, where: str) -> pl.Series:
    """Return the column as float64. Dates and date-times become seconds since 1970 (UTC).

    Raises ValueError naming `where`, the first bad value and its row.
    """
    if column.dtype in (pl.Date, pl.Datetime):
        return column.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    if column.dtype == pl.String:
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
        if numbers.is_null().any():
            stamps = _as_stamps(column)
            numbers = numbers if stamps is None else stamps
    elif column.dtype.is_numeric():
        numbers = column.cast(pl.Float64)
    else:
        raise ValueError(f"{where} holds {column.dtype}, but it must be numbers or dates.")
    bad = numbers.is_null() | ~numbers.is_finite().fill_null(False)
    if bad.any():
        row = int(bad.arg_true()[0])
        raise ValueError(
            f"{where} is not a number in {bad.sum()} rows, the first is data row {row + 1}: {column[row]!r}."
        )
    return numbers


def _as_stamps(column: pl.Series) -> pl.Series | None:
    """Read ISO dates or date-times as seconds since 1970 (UTC), or None where that fails."""
    for form in (None, "%Y-%m-%d"):
        try:
            stamps = column.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=True)
            return stamps.dt.epoch("us").cast(pl.Float64) / 1e6
        except (pl.exceptions.PolarsError, ValueError):
            continue
    return None


def _without_duplicates(table: pl.DataFrame, source: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    if "time" not in table.columns:
        return table, {}
    unique = table.unique(["user", "item", "time"], keep="first", maintain_order=True)
    dropped = table.height - unique.height
    if dropped:
        _warn(f"{source}: {dropped} events repeat the same user, item and time; each is counted once.")
    return unique, {"duplicate_events": dropped}


def _in_order(table: pl.DataFrame, source: str, *, warn: bool) -> pl.DataFrame:
    """Sort by user (first appearance) and time, stable."""
    table = table.with_row_index("_first").with_columns(pl.col("_first").min().over("user"))
    if "time" not in table.columns:
        return table.sort("_first", maintain_order=True).drop("_first")
    if warn:
        steps = table.select(pl.col("time").diff().over("user")).to_series()
        if (backward := int((steps < 0).sum())) > 0:
            _warn(f"{source}: not in time order ({backward} events are older than the one before); sorted by time.")
    return table.sort(["_first", "time"], maintain_order=True).drop("_first")


def k_core(table: pl.DataFrame, *, user_core: int, item_core: int) -> pl.DataFrame:
    """Remove users with fewer than `user_core` and items with fewer than `item_core` events until none is left."""
    users = table["user"].rank("dense").to_numpy().astype(np.int64)
    items = table["item"].rank("dense").to_numpy().astype(np.int64)
    kept = np.arange(table.height)
    while len(kept):
        good = np.bincount(users[kept])[users[kept]] >= user_core
        good &= np.bincount(items[kept])[items[kept]] >= item_core
        if good.all():
            break
        kept = kept[good]
    return table[kept]


def _catalogue(
    table: pl.DataFrame, items: pl.DataFrame | None, source: str, *, everything: bool, notes: dict[str, Any]
) -> pl.DataFrame:
    touched = table["item"].unique(maintain_order=True)
    if items is None:
        return pl.DataFrame({"item_id": touched, "title": pl.Series([UNTITLED] * len(touched), dtype=pl.String)})
    items = clean_items(items, source)
    catalogue = items if everything else items.filter(pl.col("item_id").is_in(touched.implode()))
    missing = touched.filter(~touched.is_in(items["item_id"].implode()))
    notes["items_without_metadata"] = len(missing)
    if len(missing):
        _warn(
            f"{source}: {len(missing)} items of the log have no metadata, for example `{missing[0]}`; their texts are empty."
        )
        blank = {c: pl.Series([""] * len(missing), dtype=pl.String) for c in items.columns if c != "item_id"}
        catalogue = pl.concat([catalogue, pl.DataFrame({"item_id": missing, **blank})], how="diagonal")
    return with_titles(catalogue, source, notes)


def clean_items(items: pl.DataFrame, source: str) -> pl.DataFrame:
    """Return the item table as texts: lists joined, entities unescaped, white space folded, one row an item."""
    if "item_id" not in items.columns:
        raise ValueError(f"{source}: the item table has no column `item_id`. It has: {', '.join(items.columns)}.")
    if items["item_id"].is_null().any():
        raise ValueError(f"{source}: `item_id` is empty in {items['item_id'].is_null().sum()} rows of the item table.")
    columns = [pl.col("item_id").cast(pl.String)]
    columns += [clean_text(items[name]).alias(name) for name in items.columns if name != "item_id"]  # type: ignore[misc]
    cleaned = items.select(columns)
    unique = cleaned.unique("item_id", keep="first", maintain_order=True)
    if unique.height < cleaned.height:
        _warn(
            f"{source}: {cleaned.height - unique.height} rows of the item table repeat an item; the first one counts."
        )
    return unique


def clean_text(column: pl.Series) -> pl.Series:
    """Return a column of texts or lists of texts as plain texts; null becomes ''."""
    return pl.Series(column.name, [_plain(value) for value in column.to_list()], dtype=pl.String)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_plain, value)))
    return " ".join(html.unescape(str(value)).split())


def with_titles(catalogue: pl.DataFrame, source: str, notes: dict[str, Any]) -> pl.DataFrame:
    """Return the item table with a title for every item; counts of empty and repeated ones go into `notes`."""
    if "title" not in catalogue.columns:
        catalogue = catalogue.with_columns(pl.lit("").alias("title"))
        _warn(f"{source}: the item table has no column `title`; every item is called '{UNTITLED}'.")
    empty = int((catalogue["title"] == "").sum())
    catalogue = catalogue.with_columns(
        pl.when(pl.col("title") == "").then(pl.lit(UNTITLED)).otherwise(pl.col("title")).alias("title")
    )
    repeated = catalogue.height - catalogue["title"].n_unique() - max(empty - 1, 0)
    notes.update(empty_titles=empty, repeated_titles=repeated)
    if empty and empty < catalogue.height:
        _warn(f"{source}: {empty} items have an empty title; they are called '{UNTITLED}'.")
    if repeated > 0:
        _warn(f"{source}: {repeated} items repeat the title of another item.")
    return catalogue.select("item_id", "title", *[c for c in catalogue.columns if c not in ("item_id", "title")])


def _encode(table: pl.DataFrame, catalogue: pl.DataFrame, source: str, notes: dict[str, Any]) -> Log:
    users = table["user"].unique(maintain_order=True)
    user_code = pl.DataFrame({"user": users, "_user": np.arange(len(users), dtype=np.int32)})
    item_code = pl.DataFrame({"item": catalogue["item_id"], "_item": np.arange(catalogue.height, dtype=np.int32)})
    coded = table.join(user_code, on="user", how="left", maintain_order="left")
    coded = coded.join(item_code, on="item", how="left", maintain_order="left")
    others = [c for c in ("time", "rating") if c in table.columns]
    events = coded.select(pl.col("_user").alias("user"), pl.col("_item").alias("item"), *others)
    return Log(interactions=events, items=catalogue, users=users, source=source, notes=notes)


def _warn(message: str) -> None:
    warnings.warn(message, LogWarning, stacklevel=3)


def from_sequences(
    users: Sequence[str], sequences: Sequence[Sequence[str]], items: pl.DataFrame | None, *, source: str, **core: Any
) -> Log:
    """Make a log without times out of one ordered list of item ids a user."""
    lengths = [len(sequence) for sequence in sequences]
    table = pl.DataFrame(
        {
            "user": np.repeat(np.array(users, dtype=object), lengths).tolist(),
            "item": [item for sequence in sequences for item in sequence],
        },
        schema={"user": pl.String, "item": pl.String},
    )
    return make_log(table, items, source=source, **core)
