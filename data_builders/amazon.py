"""Amazon reviews: raw review and metadata JSON lines of 2014, 2018 and 2023."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import polars as pl
from rectune.data_builders.files import find_file

from rectune.log.cleaning import Repeats, make_log
from rectune.log.log import Log
from rectune.runtime.near import shown
from rectune.runtime.text_files import json_of, read_json_lines, read_lines

Year = Literal[2014, 2018, 2023]


def amazon(
    *,
    path: Path,
    year: Year,
    reviews: str | None = None,
    metadata: str | None = None,
    user_core: int = 5,
    item_core: int = 5,
    repeats: Repeats = "keep",
) -> Log:
    """Read a folder with a review file and a metadata file of one category, plain or .gz.

    `reviews` and `metadata` name the files where the folder holds several. 2014 and 2018: `reviewerID`, `asin`,
    `overall`, `unixReviewTime`; 2023: `user_id`, `parent_asin`, `rating`, `timestamp` (milliseconds). Items get `title`,
    `brand` (2023: store), `categories`, `description`. Only items with events are kept unless `item_core` is 0.
    """
    review_file = path / reviews if reviews else find_file(path, *_review_patterns(year))
    meta_file = path / metadata if metadata else find_file(path, "meta_*.json", "meta_*.jsonl")
    events = pl.DataFrame(
        list(_events(review_file, year)),
        schema={"user": pl.String, "item": pl.String, "rating": pl.Float64, "time": pl.Float64},
        orient="row",
    )
    items = pl.DataFrame(
        list(_items(meta_file, year)), schema=["item_id", "title", "brand", "categories", "description"], orient="row"
    )
    return make_log(
        events,
        items,
        source=review_file.name,
        user_core=user_core,
        item_core=item_core,
        repeats=repeats,
        warn_unordered=False,
    )


def _review_patterns(year: Year) -> tuple[str, ...]:
    return ("[!m]*.jsonl",) if year == 2023 else ("[!m]*_5.json", "[!m]*.json")


def _events(file: Path, year: Year) -> Iterator[tuple[str, str, float, float]]:
    names = (
        ("user_id", "parent_asin", "rating", "timestamp")
        if year == 2023
        else ("reviewerID", "asin", "overall", "unixReviewTime")
    )
    for line, row in read_json_lines(file):
        try:
            user, item, rating, time = (row[name] for name in names)
            yield str(user), str(item), float(rating), float(time)
        except KeyError as error:
            raise ValueError(f"{file.name}:{line}: no field {error} (layout of {year}). Is `year` right?") from None
        except (TypeError, ValueError):
            raise ValueError(f"{file.name}:{line}: `{names[2]}` or `{names[3]}` is not a number.") from None


def _items(file: Path, year: Year) -> Iterator[tuple[str, str, str, str, str]]:
    item_id = "parent_asin" if year == 2023 else "asin"
    rows = _python_lines(file) if year == 2014 else read_json_lines(file)
    for line, row in rows:
        if item_id not in row:
            raise ValueError(f"{file.name}:{line}: no field '{item_id}' (layout of {year}). Is `year` right?")
        brand = row.get("store" if year == 2023 else "brand")
        categories = row.get("category" if year == 2018 else "categories") or []
        if categories and isinstance(categories[0], list):  # 2014: a list of paths; the first one is the main path
            categories = categories[0]
        yield (
            str(row[item_id]),
            _text(row.get("title")),
            _text(brand),
            ", ".join([categories] if isinstance(categories, str) else map(str, categories)),
            _text(row.get("description")),
        )


def _python_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The metadata of 2014 is one Python literal a line, later re-issues are JSON."""
    for number, line in read_lines(file):
        try:
            row = json_of(line, file.name)
        except ValueError:
            try:
                row = ast.literal_eval(line)
            except (SyntaxError, ValueError):
                raise ValueError(f"{file.name}:{number}: neither a Python literal nor JSON.") from None
        if not isinstance(row, dict):
            raise ValueError(f"{file.name}:{number}: an item must be an object of fields, got {shown(row)}.")
        yield number, row


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)
