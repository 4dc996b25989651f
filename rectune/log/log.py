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

from rectune.log.times import as_number

Repeats = Literal["keep", "first", "last"]
UNTITLED = "untitled"
MISSING = ("na", "n/a", "nan", "null", "none", "nil", "undefined", "unknown", "missing", "-", "#n/a", "(null)", "\\n")
LARGE, MANY = 0.3, 10  # of so many users or items, one with that share of all events is told of
FEW = 0.05  # of the log's items; where no more of them are in the item table, the ids are written otherwise


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
    def n_events(self) -> int:
        """How many events there are; in data that comes already split, where each row repeats its history, each counted once."""
        if self.cut is None:
            return self.interactions.height
        rows = self.cut.select("user", length=pl.col("stop") - pl.col("start"))
        each = rows.group_by("user").agg(pl.col("length").min(), pl.len().alias("targets"))
        return int((each["length"] + each["targets"]).sum())

    def facts(self) -> dict[str, Any]:
        """What a report says of it: how many users, items and events, and the notes."""
        return {"users": self.n_users, "items": self.n_items, "events": self.n_events, **self.notes}

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
    time_format: str | None = None,
) -> Log:
    """Check, clean and encode raw tables into a `Log`.

    `interactions` needs `user` and `item` (any type, read as text) and may have `time` (number) and `rating`
    (number); without `time` the order of its rows is the order of events. `items` needs `item_id` and may have
    `title` and other columns; lists become one text joined by ', ', HTML entities are unescaped. Events are sorted
    by user and time; events of one user with equal times keep the order of the rows. The same user, item and time
    twice is one event. White space around ids is left out; `time_format` is that of `as_number`. `user_core` and `item_core` remove users and items with fewer events, to the fixed point; with
    `item_core` 0 items that nobody touched stay in the catalogue.
    Raises ValueError naming `source` for missing columns, nulls, NaN or non-numeric times and ratings, and a log
    that is or becomes empty, and ids of log and items that do not match. Warns once (`LogWarning`) for each thing that is probably a
    mistake; what it said is kept in the log's `notes`.
    """
    notes: dict[str, Any] = {}
    table = _checked_interactions(interactions, source, time_format)
    table = _without_duplicates(table, source, notes)
    _look_at_ids(table, source, notes)
    table = _in_order(table, source, notes, warn=warn_unordered)
    if repeats != "keep":
        table = table.unique(["user", "item"], keep=repeats, maintain_order=True)
    table = k_core(table, user_core=user_core, item_core=item_core)
    if table.is_empty():
        raise ValueError(f"{source}: no event is left at user_core={user_core}, item_core={item_core}. Lower them.")
    catalogue = _catalogue(table, items, source, everything=item_core <= 0, notes=notes)
    return _encode(table, catalogue, source, notes)


def _checked_interactions(table: pl.DataFrame, source: str, time_format: str | None) -> pl.DataFrame:
    for column in ("user", "item"):
        if column not in table.columns:
            raise ValueError(f"{source}: the log has no column `{column}`. It has: {', '.join(table.columns)}.")
    if table.is_empty():
        raise ValueError(f"{source}: the log is empty.")
    for column in ("user", "item", "time", "rating"):
        if column in table.columns and (nulls := table[column].is_null()).any():
            first = int(nulls.arg_true()[0]) + 1
            raise ValueError(f"{source}: `{column}` is empty in {nulls.sum()} rows, the first is data row {first}.")
    keep = [pl.col(c).cast(pl.String).str.strip_chars() for c in ("user", "item")]
    for column, kind in (("time", pl.Float64), ("rating", pl.Float32)):
        if column not in table.columns:
            continue
        form = time_format if column == "time" else None
        keep.append(as_number(table[column], f"{source}: `{column}`", time_format=form).cast(kind).alias(column))  # type: ignore[arg-type]
    return table.select(keep)


def _without_duplicates(table: pl.DataFrame, source: str, notes: dict[str, Any]) -> pl.DataFrame:
    if "time" not in table.columns:
        return table
    unique = table.unique(["user", "item", "time"], keep="first", maintain_order=True)
    notes["duplicate_events"] = dropped = table.height - unique.height
    if dropped:
        _warn(f"{source}: {dropped} events repeat the same user, item and time; each is counted once.", notes)
    return unique


def _look_at_ids(table: pl.DataFrame, source: str, notes: dict[str, Any]) -> None:
    """Warn of ids that are words for 'missing', and of one user or item that owns a large share of the log."""
    for column in ("user", "item"):
        counts = table[column].value_counts(sort=True)
        words = counts.filter(pl.col(column).str.to_lowercase().is_in(MISSING))
        if words.height:
            told = ", ".join(f"`{name}` ({count:,} events)" for name, count in words.rows())
            _warn(
                f"{source}: {told} as {column} may stand for a missing one. Leave such rows out with `missing`.", notes
            )
        name, most = counts.row(0)
        if counts.height >= MANY and most > LARGE * table.height and name not in set(words[column].to_list()):
            _warn(f"{source}: the {column} `{name}` has {most / table.height:.0%} of all events.", notes)


def _in_order(table: pl.DataFrame, source: str, notes: dict[str, Any], *, warn: bool) -> pl.DataFrame:
    """Sort by user (first appearance) and time, stable."""
    table = table.with_row_index("_first").with_columns(pl.col("_first").min().over("user"))
    if "time" not in table.columns:
        table = table.sort("_first", maintain_order=True).drop("_first")
        if warn:
            _look_at_order(table, source, notes)
        return table
    if warn:
        steps = table.select(pl.col("time").diff().over("user")).to_series()
        if (backward := int((steps < 0).sum())) > 0:
            told = f"{source}: not in time order ({backward} events are older than the one before); sorted by time."
            _warn(told, notes)
    return table.sort(["_first", "time"], maintain_order=True).drop("_first")


def _look_at_order(table: pl.DataFrame, source: str, notes: dict[str, Any]) -> None:
    """Warn where nearly all longer users have their items in the order of the ids: the rows were sorted, and their order is no time."""
    numbers = table["item"].cast(pl.Int64, strict=False)
    for kind, key in (("number", numbers), ("text", table["item"])):
        if key.is_null().any():
            continue
        rises = (pl.col("key").shift(1).over("user") <= pl.col("key")).alias("rises")
        keyed = table.select("user", key=key).select("user", rises)
        rising = keyed.group_by("user").agg(pl.col("rises").drop_nulls().all(), pl.len().alias("events"))
        longer = rising.filter(pl.col("events") >= 5)
        if longer.height >= 3 and longer["rises"].sum() > 0.9 * longer.height:
            _warn(
                f"{source}: {longer['rises'].sum():,} of {longer.height:,} users with five or more events have them in the order of the item "
                f"ids (as {kind}), so the rows are probably sorted and their order is not that of time. Name the column of the `time`; "
                "without one nothing that is said of a next item means anything.",
                notes,
            )
            return


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
        return pl.DataFrame({"item_id": touched, "title": touched})
    items = clean_items(items, source, notes)
    _check_match(touched, items["item_id"], source)
    catalogue = items if everything else items.filter(pl.col("item_id").is_in(touched.implode()))
    missing = touched.filter(~touched.is_in(items["item_id"].implode()))
    notes["items_without_metadata"] = len(missing)
    if len(missing):
        told = f"{source}: {len(missing)} items of the log have no metadata, for example `{missing[0]}`; their texts are empty."
        _warn(told, notes)
        blank = {c: pl.Series([""] * len(missing), dtype=pl.String) for c in items.columns if c != "item_id"}
        catalogue = pl.concat([catalogue, pl.DataFrame({"item_id": missing, **blank})], how="diagonal")
    return with_titles(catalogue, source, notes)


def _check_match(touched: pl.Series, listed: pl.Series, source: str) -> None:
    """Raise ValueError where none, or hardly any, of the log's items are in the item table."""
    known = touched.is_in(listed.implode())
    if known.sum() > FEW * len(touched):
        return
    stranger, other = touched.filter(~known)[0], listed[0] if len(listed) else ""
    alike = {_bare(name): name for name in reversed(listed.to_list())}
    pair = next(((name, alike[_bare(name)]) for name in touched.filter(~known).to_list() if _bare(name) in alike), None)
    told = ""
    if pair is not None:
        stranger, other = pair
        told = " They differ in leading zeros, in '.0' or in case: write the ids alike in both."
    raise ValueError(
        f"{source}: {int(known.sum())} of the log's {len(touched):,} items are in the item table. The log has, for example, `{stranger}`, and "
        f"the table `{other}`.{told} Is `item_id` the right column?"
    )


def _bare(name: str) -> str:
    """An id without what is lost on the way through a spreadsheet."""
    return name.removesuffix(".0").lstrip("0").lower()


def clean_items(items: pl.DataFrame, source: str, notes: dict[str, Any] | None = None) -> pl.DataFrame:
    """Return the item table as texts: lists joined, entities unescaped, white space folded, one row an item."""
    if "item_id" not in items.columns:
        raise ValueError(f"{source}: the item table has no column `item_id`. It has: {', '.join(items.columns)}.")
    if items["item_id"].is_null().any():
        raise ValueError(f"{source}: `item_id` is empty in {items['item_id'].is_null().sum()} rows of the item table.")
    columns = [pl.col("item_id").cast(pl.String).str.strip_chars()]
    columns += [clean_text(items[name]).alias(name) for name in items.columns if name != "item_id"]  # type: ignore[misc]
    cleaned = items.select(columns)
    unique = cleaned.unique("item_id", keep="first", maintain_order=True)
    if unique.height < cleaned.height:
        told = (
            f"{source}: {cleaned.height - unique.height} rows of the item table repeat an item; the first one counts."
        )
        _warn(told, notes)
    return unique


def clean_text(column: pl.Series) -> pl.Series:
    """Return a column of texts or lists of texts as plain texts; null becomes ''."""
    return pl.Series(column.name, [plain_text(value) for value in column.to_list()], dtype=pl.String)


def plain_text(value: Any) -> str:
    """A value of an item as one line: lists joined, objects as 'key: value', entities unescaped, white space folded."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(filter(None, map(plain_text, value)))
    if isinstance(value, dict):
        return ", ".join(f"{plain_text(key)}: {text}" for key, one in value.items() if (text := plain_text(one)))
    return " ".join(html.unescape(str(value)).split())


def with_titles(catalogue: pl.DataFrame, source: str, notes: dict[str, Any]) -> pl.DataFrame:
    """Return the item table with a title for every item; counts of empty and repeated ones go into `notes`."""
    if "title" not in catalogue.columns:
        catalogue = catalogue.with_columns(pl.lit("").alias("title"))
        _warn(f"{source}: the item table has no column `title`; every item is called '{UNTITLED}'.", notes)
    empty = int((catalogue["title"] == "").sum())
    catalogue = catalogue.with_columns(
        pl.when(pl.col("title") == "").then(pl.lit(UNTITLED)).otherwise(pl.col("title")).alias("title")
    )
    repeated = catalogue.height - catalogue["title"].n_unique() - max(empty - 1, 0)
    notes.update(empty_titles=empty, repeated_titles=repeated)
    if empty and empty < catalogue.height:
        _warn(f"{source}: {empty} items have an empty title; they are called '{UNTITLED}'.", notes)
    if repeated > 0:
        _warn(f"{source}: {repeated} items repeat the title of another item.", notes)
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


def _warn(message: str, notes: dict[str, Any] | None) -> None:
    """Warn, and keep what was said with the log."""
    if notes is not None:
        notes.setdefault("warnings", []).append(message)
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
