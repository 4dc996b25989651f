"""The layout of LC-Rec, LETTER and their followers: `*.inter.json`, `*.item.json`; ordered, no times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from rectune.data_builders.files import find_file, optional_file

from rectune.log.cleaning import from_sequences
from rectune.log.log import Log
from rectune.runtime.text_files import read_json


def lc_rec(*, path: Path, user_core: int = 0, item_core: int = 1) -> Log:
    """Read a folder with `*.inter.json` (user -> item numbers, oldest first) and, where there is one, item texts.

    Item texts come from `*.item.json` (item -> title, description, brand, categories) or `*.item.derived.json`. An
    `*.index.json` beside them is read by `given`, not here. Items that nobody touched are left out
    (`item_core: 0` keeps them).
    """
    inter = find_file(path, "*.inter.json")
    sequences = read_json(inter)
    if not isinstance(sequences, dict) or not all(isinstance(items, list) for items in sequences.values()):
        raise ValueError(f"{inter.name}: it must map each user to a list of item numbers.")
    texts = optional_file(path, "*.item.json", "*.item.derived.json")
    items = [[str(item) for item in sequence] for sequence in sequences.values()]
    return from_sequences(
        list(sequences),
        items,
        item_table(texts) if texts else None,
        source=inter.name,
        user_core=user_core,
        item_core=item_core,
    )


def item_table(file: Path) -> pl.DataFrame:
    """Read `item -> {title, description, brand, categories, ...}` as a table of texts."""
    texts: dict[str, dict[str, Any]] = read_json(file)
    if not isinstance(texts, dict) or not all(isinstance(entry, dict) for entry in texts.values()):
        raise ValueError(f"{file.name}: it must map each item to an object with its texts.")
    columns = list(dict.fromkeys(name for entry in texts.values() for name in entry))
    data: dict[str, list[Any]] = {"item_id": list(texts)}
    for column in columns:
        data[column] = [_text(entry.get(column)) for entry in texts.values()]
    return pl.DataFrame(data, schema=dict.fromkeys(data, pl.String))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
