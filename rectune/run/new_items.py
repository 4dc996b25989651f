"""Items that come after a tuning: read, given vectors by the sources of the index, and named."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from rectune.indexing.item_index import Codes, ItemIndex, check_unique
from rectune.indexing.quantised import names_of_new
from rectune.log.item_table import clean_items, with_titles
from rectune.recipe.calls import Call
from rectune.runtime.text_files import read_json_lines, read_text
from rectune.tasks.asked_histories import event_less
from rectune.vectors.item_vectors import Fitted, ItemVectors, join


def _csv(file: Path) -> pl.DataFrame:
    return pl.read_csv(io.StringIO(read_text(file)), infer_schema=False)  # an id such as 0012 is no number


def _json_lines(file: Path) -> pl.DataFrame:
    return pl.DataFrame([row for _, row in read_json_lines(file)], infer_schema_length=None)


READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": pl.read_parquet,
}  # fmt: skip


def read_items(file: Path, items: pl.DataFrame) -> pl.DataFrame:
    """Read new items with the columns of the catalogue's `items`, cleaned like those; texts that are missing are ''."""
    if file.suffix not in READERS:
        raise ValueError(f"{file.name}: items are read from {', '.join(READERS)} files.")
    return checked_items(READERS[file.suffix](file), items, source=file.name)


def checked_items(table: pl.DataFrame, items: pl.DataFrame, *, source: str) -> pl.DataFrame:
    """New items with the columns of the catalogue's `items`, cleaned. Raises ValueError naming `source` for none, and for an id that is given twice or
    known."""
    if not table.height:
        raise ValueError(f"{source}: it holds no item.")
    if "item_id" in table.columns:
        ids = pl.Series("item_id", [str(i) for i in table["item_id"].to_list()])
        if ids.is_duplicated().any():
            raise ValueError(f"{source}: item `{ids.filter(ids.is_duplicated())[0]}` is given twice.")
        known = set(items["item_id"].to_list())
        for item_id in ids:
            if item_id in known:
                raise ValueError(f"{source}: the catalogue already has the item `{item_id}`; only new items are added.")
    table = clean_items(table, source)
    table = table.with_columns(pl.lit("").alias(name) for name in items.columns if name not in table.columns)
    return with_titles(table.select(items.columns), source, {})


def names_for(items: pl.DataFrame, index: ItemIndex, sources: Sequence[Call], fitted: Sequence[Fitted]) -> Codes:
    """Names of new items by an index, behind its own. Raises ValueError for an index that names none."""
    codes = names_of_new(index, new_vectors(items, index, sources, fitted))
    check_unique(np.vstack([index.codes, codes]))
    return codes


def new_vectors(
    items: pl.DataFrame, index: ItemIndex, sources: Sequence[Call], fitted: Sequence[Fitted]
) -> ItemVectors:
    """Vectors of new items from those `sources` that the index reads, the others as zeros (LETTER's index reads its content only). `fitted`: what
    each source learned from the catalogue.

    A source that learns from the catalogue has `of_new(split, fitted, **keys)` beside it. Raises ValueError for a source that has no vector for
    new items, such as a SASRec.
    """
    split = event_less(items)
    read = {int(i) for i in index.fitted.get("blocks", ())}
    ids = tuple(items["item_id"].to_list())
    parts = []
    for i, source in enumerate(sources):
        if i not in read:
            parts.append(ItemVectors(ids, (np.zeros((len(ids), 1), dtype=np.float32),)))
            continue
        again = getattr(sys.modules[source.function.__module__], "of_new", None)
        try:
            if again is None:
                parts.append(source(split))
            elif fitted[i]:
                parts.append(again(split, fitted[i], **source.arguments))
            else:
                raise ValueError(
                    "what it learned from the catalogue was not kept; train again with `--rebuild vectors`"
                )
        except ValueError as error:
            raise ValueError(
                f"`vectors.{i}` gives a new item no vector, so this index cannot name it: {error}"
            ) from None
    return join(parts) if parts else ItemVectors(ids, ())
