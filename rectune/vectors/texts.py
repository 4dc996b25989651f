"""Item texts, and a vector for each: embedded once and kept under the hash of the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.log.item_table import UNTITLED
from rectune.log.split import Split
from rectune.runtime.cache import made_once
from rectune.runtime.files import stamp
from rectune.runtime.progress import watched
from rectune.runtime.text_files import first_line
from rectune.vectors.item_vectors import ItemVectors, Vectors, checked_vectors

Embed = Callable[[list[str]], NDArray[np.float32]]  # texts -> (texts, dimensions)


def item_texts(items: pl.DataFrame, fields: Sequence[str]) -> list[str]:
    """Join the columns `fields` of each item into one text, in that order, empty ones left out.

    Raises ValueError for a column that the items don't have, and for an item that has nothing in any of them but the
    title that a log gives to items without one.
    """
    if not fields:
        raise ValueError(f"`text`: it names no column. The items have: {', '.join(items.columns)}.")
    for name in fields:
        if name not in items.columns:
            raise ValueError(f"`text`: the items have no column `{name}`. They have: {', '.join(items.columns)}.")
    rows = zip(*(items[name].to_list() for name in fields), strict=True)
    texts = [". ".join(filter(None, row)) for row in rows]
    told = zip(items["item_id"].to_list(), texts, strict=True)
    empty = [item_id for item_id, text in told if text.strip() in ("", UNTITLED)]
    if empty:
        raise ValueError(
            f"`text`: item `{empty[0]}` has no text in {', '.join(f'`{name}`' for name in fields)} ({len(empty)} of {len(texts)} "
            "items have none). Name another column, or give these items a text."
        )
    return texts


def model_identity(model: str) -> str:
    """What names a model in the cache: its files where it is a folder, else its name."""
    folder = Path(model)
    return f"{folder.name} {stamp(folder)}" if folder.is_dir() else model


def of_items(split: Split, values: Vectors) -> ItemVectors:
    """The vectors of all items of a split, checked."""
    return checked_vectors(split.log.items["item_id"].to_list(), values, source="`vectors`")


def embedded(texts: list[str], load: Callable[[], Embed], *, maker: str, batch_size: int) -> Vectors:
    """One vector a text; texts of like length go together, and the model is loaded only when a text is new."""

    def make(missing: list[str]) -> Iterator[tuple[str, bytes]]:
        embed = load()
        ordered = sorted(missing, key=len, reverse=True)
        size = batch_size * 8
        for begin in watched(range(0, len(ordered), size), len(ordered), "embedding items", "texts", each=size):
            batch = ordered[begin : begin + size]
            for text, vector in zip(batch, embed(batch), strict=True):
                yield text, vector.astype(np.float32).tobytes()

    return np.stack(
        [np.frombuffer(raw, dtype=np.float32) for raw in made_once(texts, make, name="vectors", maker=maker)]
    )


def not_loaded(name: str, error: Exception) -> FileNotFoundError:
    """The error for a model that cannot be loaded."""
    return FileNotFoundError(f"`vectors.model`: no model could be loaded from `{name}` ({first_line(error)}).")
