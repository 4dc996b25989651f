"""The item table: texts cleaned, one row an item, a title for each."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.log.log import warn

UNTITLED = "untitled"
FEW = 0.05  # of the log's items; where no more of them are in the item table, the ids are written otherwise


def catalogue_of(
    touched: pl.Series, items: pl.DataFrame | None, source: str, *, everything: bool, notes: dict[str, Any]
) -> pl.DataFrame:
    """The catalogue of a log: the items that it touched, in the order of their first event, or the item table with them behind it."""
    if items is None:
        return pl.DataFrame({"item_id": touched, "title": touched})
    items = clean_items(items, source, notes)
    _check_match(touched, items["item_id"], source)
    catalogue = items if everything else items.filter(pl.col("item_id").is_in(touched.implode()))
    missing = touched.filter(~touched.is_in(items["item_id"].implode()))
    notes["items_without_metadata"] = len(missing)
    if len(missing):
        told = f"{source}: {len(missing)} items of the log have no metadata, for example `{missing[0]}`; their texts are empty."
        warn(told, notes)
        blank = {c: pl.Series([""] * len(missing), dtype=pl.String) for c in items.columns if c != "item_id"}
        catalogue = pl.concat([catalogue, pl.DataFrame({"item_id": missing, **blank})], how="diagonal")
    return with_titles(catalogue, source, notes)


def codes_of(items: pl.Series, catalogue: pl.DataFrame) -> NDArray[np.int32]:
    """The rows of items in the catalogue, shape (items,)."""
    return places_of(items, catalogue["item_id"])


def places_of(ids: pl.Series, among: pl.Series) -> NDArray[np.int32]:
    """The place of each id among others, which are all different, -1 for one that is not there, shape (ids,)."""
    place = pl.DataFrame({"id": among, "at": np.arange(len(among), dtype=np.int32)})
    found = ids.to_frame("id").join(place, on="id", how="left", maintain_order="left")
    return found["at"].fill_null(-1).to_numpy()


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
    ids = items["item_id"].cast(pl.String).str.strip_chars()
    empty = ids.is_null() | (ids == "")
    if empty.any():
        raise ValueError(
            f"{source}: `item_id` is empty in {empty.sum()} rows of the item table, the first is data row {int(empty.arg_true()[0]) + 1}. Take these rows out."
        )
    columns: list[Any] = [ids]
    columns += [clean_text(items[name]).alias(name) for name in items.columns if name != "item_id"]
    cleaned = items.select(columns)
    unique = cleaned.unique("item_id", keep="first", maintain_order=True)
    if unique.height < cleaned.height:
        told = (
            f"{source}: {cleaned.height - unique.height} rows of the item table repeat an item; the first one counts."
        )
        warn(told, notes)
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
        warn(f"{source}: the item table has no column `title`; every item is called '{UNTITLED}'.", notes)
    empty = int((catalogue["title"] == "").sum())
    catalogue = catalogue.with_columns(
        pl.when(pl.col("title") == "").then(pl.lit(UNTITLED)).otherwise(pl.col("title")).alias("title")
    )
    repeated = catalogue.height - catalogue["title"].n_unique() - max(empty - 1, 0)
    notes.update(empty_titles=empty, repeated_titles=repeated)
    if empty and empty < catalogue.height:
        warn(f"{source}: {empty} items have an empty title; they are called '{UNTITLED}'.", notes)
    if repeated > 0:
        warn(f"{source}: {repeated} items repeat the title of another item.", notes)
    return catalogue.select("item_id", "title", *[c for c in catalogue.columns if c not in ("item_id", "title")])
