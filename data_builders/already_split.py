"""Logs that come already cut into rows: each row's history and target are laid out as events of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.log.item_table import clean_items, with_titles
from rectune.log.log import Log
from rectune.log.split import Part


@dataclass(frozen=True)
class GivenRow:
    """One row as the source gives it: `history`, `target` and `candidates` are item ids; ratings and candidates, the target among them, are
    given for all rows or for none."""

    part: Part
    user: str
    history: Sequence[str]
    target: str
    ratings: Sequence[float] | None = None  # history, then target
    candidates: Sequence[str] | None = None


def given_log(rows: Sequence[GivenRow], items: pl.DataFrame, *, source: str) -> Log:
    """Lay out rows as a log with a `cut`; the events of a row follow each other, its target last.

    Raises ValueError for a row that names an item which `items` does not hold, or when there is no row.
    """
    if not rows:
        raise ValueError(f"{source}: no row.")
    notes: dict[str, Any] = {}
    catalogue = with_titles(clean_items(items, source, notes), source, notes)
    code = {item: i for i, item in enumerate(catalogue["item_id"].to_list())}
    users = list(dict.fromkeys(row.user for row in rows))
    user_code = {user: i for i, user in enumerate(users)}
    lengths = np.array([len(row.history) + 1 for row in rows])
    names = [item.strip() for row in rows for item in (*row.history, row.target)]
    offered = [[item.strip() for item in row.candidates or ()] for row in rows]
    for item in (*names, *(item for some in offered for item in some)):
        if item not in code:
            raise ValueError(f"{source}: item `{item}` is not in the item file.")
    events: dict[str, NDArray[Any]] = {
        "user": np.repeat(np.array([user_code[row.user] for row in rows], dtype=np.int32), lengths),
        "item": np.array([code[item] for item in names], dtype=np.int32),
    }
    if all(row.ratings is not None for row in rows):
        events["rating"] = np.array([r for row in rows for r in row.ratings or ()], dtype=np.float32)
    target = np.cumsum(lengths) - 1
    cut = pl.DataFrame(
        {
            "part": [row.part for row in rows],
            "row": np.arange(len(rows)),
            "user": np.array([user_code[row.user] for row in rows], dtype=np.int32),
            "start": target - lengths + 1,
            "stop": target,
            "target": target,
        }
    )
    _check_offered(rows, offered, source)
    if offered[0]:
        codes = [[code[item] for item in some] for some in offered]
        cut = cut.with_columns(candidates=pl.Series(codes, dtype=pl.List(pl.Int32)))
    return Log(
        user_codes=events["user"],
        item_codes=events["item"],
        ratings=events.get("rating"),
        items=catalogue,
        users=pl.Series(users, dtype=pl.String),
        source=source,
        cut=cut,
        notes=notes,
    )


def _check_offered(rows: Sequence[GivenRow], offered: Sequence[Sequence[str]], source: str) -> None:
    """Raise ValueError for candidates that some rows lack, that repeat an item, or that leave the target out."""
    counts: dict[str, int] = {}
    for row, some in zip(rows, offered, strict=True):
        counts[row.part] = counts.get(row.part, 0) + 1
        where = f"{source}: row {counts[row.part]} of `{row.part}`"
        if bool(some) != bool(offered[0]):
            raise ValueError(f"{where}: candidates are given for some rows only; give them for all or for none.")
        if some and row.target.strip() not in some:
            raise ValueError(f"{where}: the target `{row.target.strip()}` is none of its candidates.")
        if len(set(some)) < len(some):
            raise ValueError(f"{where}: its candidates name an item twice.")
