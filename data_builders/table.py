"""Your own log: CSV, TSV, Parquet or JSON lines, or a data set of the Hub."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from rectune.data_builders.files import read_rows

from rectune.log.log import Log, Repeats, make_log
from rectune.runtime.near import near
from rectune.runtime.text_files import read_json_lines

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


def table(
    *,
    path: Path | None = None,
    dataset: str | None = None,
    dataset_split: str = "train",
    user: str = "user",
    item: str = "item",
    time: str | None = None,
    rating: str | None = None,
    items_path: Path | None = None,
    items_dataset: str | None = None,
    item_id: str | None = None,
    title: str | None = None,
    text: list[str] | None = None,
    encoding: str = "utf-8",
    separator: str | None = None,
    columns: list[str] | None = None,
    user_core: int = 0,
    item_core: int = 0,
    repeats: Repeats = "keep",
) -> Log:
    """Read a log, and items where there are any.

    `path`: a .csv, .tsv, .parquet or .jsonl file, plain or .gz; or `dataset`: a data set of the Hub (or a local folder
    that `datasets.load_dataset` reads). `user`, `item`, `time`, `rating` name its columns; without `time` the order of
    the rows is the order of events. `items_path` or `items_dataset` hold the items: `item_id` (default: the name given as
    `item`) and `title` name the columns, `text` the other columns to keep (default: all).
    `separator` is for text of another form than its ending says; `columns` name those of a log without a header line.
    """
    log = _read(path, dataset, dataset_split, encoding, "path", separator=separator, columns=columns)
    source = path.name if path is not None else str(dataset)
    chosen = {"user": user, "item": item, "time": time, "rating": rating}
    events = _pick(log, {k: v for k, v in chosen.items() if v is not None}, source)
    shelf = None
    if items_path is not None or items_dataset is not None:
        items = _read(items_path, items_dataset, dataset_split, encoding, "items_path", separator=separator)
        name = items_path.name if items_path is not None else str(items_dataset)
        shelf = _shelf(items, item_id or item, title, text, name)
    return make_log(events, shelf, source=source, user_core=user_core, item_core=item_core, repeats=repeats)


def _read(
    path: Path | None,
    dataset: str | None,
    split: str,
    encoding: str,
    key: str,
    *,
    separator: str | None = None,
    columns: list[str] | None = None,
) -> pl.DataFrame:
    if (path is None) == (dataset is None):
        raise ValueError(f"`data`: give either `{key}` or `{key.replace('path', 'dataset')}`.")
    if path is None:
        from datasets import load_dataset

        frame = pl.from_arrow(load_dataset(dataset, split=split).with_format("arrow")[:])
        assert isinstance(frame, pl.DataFrame)
        return frame
    kinds = [s for s in path.suffixes if s != ".gz"]
    kind = kinds[-1].lower() if kinds else ""
    if path.is_dir():
        raise ValueError(f"`{path}` is a folder; name the file.")
    if kind == ".parquet":
        return _parquet(path)
    if kind in (".jsonl", ".ndjson", ".json"):
        return pl.DataFrame([row for _, row in read_json_lines(path)], infer_schema_length=None)
    if kind in SEPARATORS or separator is not None:
        return read_rows(path, separator=separator or SEPARATORS[kind], columns=columns, encoding=encoding)
    raise ValueError(
        f"{path.name}: cannot tell what this is. Known endings: .csv, .tsv, .parquet, .jsonl, each plain or .gz; "
        "for other delimited text give `separator`."
    )


def _parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path.name}: not a readable Parquet file ({' '.join(str(error).split())[:200]}).") from None


def _pick(frame: pl.DataFrame, chosen: dict[str, str], source: str) -> pl.DataFrame:
    for key, column in chosen.items():
        if column not in frame.columns:
            raise ValueError(f"{source}: no column `{column}` (named by `data.{key}`).{near(column, frame.columns)}")
    picked = frame.select([pl.col(column).alias(key) for key, column in chosen.items()])
    blank = [
        pl.when(pl.col(c) == "").then(None).otherwise(pl.col(c)).alias(c)
        for c, t in picked.schema.items()
        if t == pl.String
    ]
    return picked.with_columns(blank)


def _shelf(frame: pl.DataFrame, item_id: str, title: str | None, text: list[str] | None, source: str) -> pl.DataFrame:
    for key, column in (
        ("item_id", item_id),
        *([("title", title)] if title else []),
        *(("text", t) for t in text or []),
    ):
        if column not in frame.columns:
            raise ValueError(f"{source}: no column `{column}` (named by `data.{key}`).{near(column, frame.columns)}")
    others = text if text is not None else [c for c in frame.columns if c not in (item_id, title)]
    columns = [pl.col(item_id).alias("item_id"), *([pl.col(title).alias("title")] if title else [])]
    return frame.select(*columns, *[pl.col(c) for c in others if c not in ("item_id", *(["title"] if title else []))])
