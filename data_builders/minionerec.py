"""MiniOneRec's files: rows in CSV, item texts in JSON, already split by time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from rectune.data_builders.already_split import GivenRow, given_log
from rectune.data_builders.files import find_file, read_rows
from rectune.data_builders.lc_rec import item_table

from rectune.log.log import Log
from rectune.log.split import Part
from rectune.runtime.near import shown

FOLDERS: dict[Part, tuple[str, ...]] = {
    "train": ("train/*.csv", "train_exact_partial/*.csv"),
    "validation": ("valid/*.csv",),
    "test": ("test/*.csv",),
}


def minionerec(*, path: Path, max_description: int = 2000) -> Log:
    """Read the folders `train`, `valid`, `test` (CSV) and `index` (`*.item.json`).

    A row holds `user_id`, `history_item_id` (a list) and `item_id`; titles and semantic ids in it are not read. The
    `description` of an item is the text of a Python list in these files; it is read as such and cut to
    `max_description` characters. Use the split `given`.
    """
    items = item_table(find_file(path, "index/*.item.json"))
    if "description" in items.columns:
        texts = [_plain_list(text)[:max_description] for text in items["description"].to_list()]
        items = items.with_columns(pl.Series("description", texts, dtype=pl.String))
    rows = [row for part, patterns in FOLDERS.items() for row in _rows(find_file(path, *patterns), part)]
    return given_log(rows, items, source=f"MiniOneRec {path.name}")


def _rows(file: Path, part: Part) -> Iterator[GivenRow]:
    frame = read_rows(file, separator=",")
    for column in ("user_id", "history_item_id", "item_id"):
        if column not in frame.columns:
            raise ValueError(f"{file.name}: no column `{column}`. It has: {', '.join(frame.columns)}.")
    triples = zip(frame["user_id"], frame["history_item_id"], frame["item_id"], strict=True)
    for number, (user, history, target) in enumerate(triples, start=1):
        try:
            items = ast.literal_eval(history)
        except (SyntaxError, ValueError):
            items = None
        if not isinstance(items, list):
            raise ValueError(
                f"{file.name}: data row {number}: `history_item_id` must be a list of items, got {shown(history[:60])}."
            )
        yield GivenRow(part, user, [str(item) for item in items], target)


def _plain_list(text: str) -> str:
    """'['a', 'b']' as 'a b'; any other text as it is."""
    if not text.startswith("["):
        return text
    try:
        parts = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    return " ".join(map(str, parts)) if isinstance(parts, list) else text
