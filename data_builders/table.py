"""Your own log: CSV, TSV, Parquet or JSON, or a data set of the Hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
from rectune.data_builders.files import other_separator, read_rows

from rectune.log.cleaning import Repeats, from_sequences, make_log
from rectune.log.item_table import plain_text
from rectune.log.log import Log
from rectune.runtime.near import near
from rectune.runtime.text_files import json_lines_of, json_of, lines_of, read_text

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
KNOWN = (".csv", ".tsv", ".tab", ".parquet", ".jsonl", ".ndjson", ".json")
Wanted = Callable[[list[str]], Sequence[str]]


def table(
    *,
    path: Path | list[Path] | None = None,
    dataset: str | None = None,
    dataset_split: str = "train",
    user: str = "user",
    item: str = "item",
    time: str | None = None,
    rating: str | None = None,
    time_format: str | None = None,
    where: dict[str, Any] | str | None = None,
    missing: list[str] | None = None,
    items_path: Path | list[Path] | None = None,
    items_dataset: str | None = None,
    item_id: str | None = None,
    title: str | None = None,
    text: list[str] | None = None,
    encoding: str = "utf-8",
    separator: str | None = None,
    columns: list[str] | None = None,
    quoted: bool = True,
    items_encoding: str | None = None,
    items_separator: str | None = None,
    items_columns: list[str] | None = None,
    layout: Literal["rows", "sequences"] = "rows",
    user_core: int = 0,
    item_core: int = 0,
    repeats: Repeats = "keep",
) -> Log:
    """Read a log, and items where there are any.

    `path`: a .csv, .tsv, .parquet, .jsonl or .json file, plain or .gz, several of them, a folder of them or a pattern such as 'events/*.csv';
    or `dataset`: a data set of the Hub (or a local folder that `datasets.load_dataset` reads). `user`, `item`, `time`, `rating` name
    its columns; without `time` the order of the rows is the order of events. `time_format`: how dates are written, e.g. '%m/%d/%Y',
    where that is not clear. `where`: which rows count, {column: value or list of values} or a condition in SQL. `missing`: words that
    stand for no user or no item; their rows are left out. `layout: sequences`: lines 'USER ITEM ITEM …', oldest first.
    `items_path` or `items_dataset` hold the items: `item_id` (default: the name given as `item`) and `title` name the columns, `text`
    the other columns to keep (default: all). `separator` is for text of another form than its ending says; `columns` name those of a
    file without a header line; `quoted: false` where quotes are text; `items_separator`, `items_columns` and `items_encoding` the
    same for the items.
    """
    source = _called(path, dataset)
    reader = Reader(encoding, separator, columns, quoted)
    shelf_reader = Reader(items_encoding or encoding, items_separator, items_columns, quoted, fallback=separator)
    shelf = None
    if items_path is not None or items_dataset is not None:
        name, called = item_id or item, _called(items_path, items_dataset)
        items = shelf_reader.read(
            items_path, items_dataset, dataset_split, "items_path", _shelf_columns(name, title, text, called)
        )
        shelf = _shelf(items, name, title)
    if layout == "sequences":
        users, sequences = _sequences(path, encoding, separator)
        return from_sequences(
            users, sequences, shelf, source=source, user_core=user_core, item_core=item_core, repeats=repeats
        )
    chosen = {"user": user, "item": item, "time": time, "rating": rating}
    named = {k: v for k, v in chosen.items() if v is not None}
    condition = _condition(where)
    asked = [
        *((f"data.{k}", v) for k, v in named.items()),
        *(("data.where", name) for name in _names(where, condition)),
    ]
    log = reader.read(path, dataset, dataset_split, "path", _checked(asked, source))
    if condition is not None or isinstance(where, dict):
        log = _filtered(log, where, condition, source)
    events = _picked(log, named)
    if missing:
        events, dropped = _without(events, missing)
        if events.is_empty():
            raise ValueError(f"{source}: every row has one of `data.missing` as user or item.")
    else:
        dropped = 0
    made = make_log(
        events, shelf, source=source, user_core=user_core, item_core=item_core, repeats=repeats, time_format=time_format,
    )  # fmt: skip
    made.notes.update({"rows_without_user_or_item": dropped} if dropped else {})
    return made


class Reader:
    """Reads files of one form: what text of them is like."""

    def __init__(
        self, encoding: str, separator: str | None, columns: list[str] | None, quoted: bool, fallback: str | None = None
    ) -> None:
        self._encoding, self._separator, self._columns, self._quoted = encoding, separator, columns, quoted
        self._fallback = fallback  # for an ending that tells nothing

    def read(
        self, path: Path | list[Path] | None, dataset: str | None, split: str, key: str, wanted: Wanted
    ) -> pl.DataFrame:
        """All files as one table of the wanted columns."""
        if (path is None) == (dataset is None):
            raise ValueError(f"`data`: give either `{key}` or `{key.replace('path', 'dataset')}`.")
        if path is None:
            from datasets import load_dataset

            frame = pl.from_arrow(load_dataset(dataset, split=split).with_format("arrow")[:])
            assert isinstance(frame, pl.DataFrame)
            return frame.select(wanted(frame.columns))
        parts = [(file, self._file(file, wanted)) for file in files_of(path)]
        first, frame = parts[0]
        for file, part in parts[1:]:
            if part.columns != frame.columns:
                raise ValueError(
                    f"{file.name}: its columns are {', '.join(part.columns)}, but those of {first.name} are {', '.join(frame.columns)}."
                )
        return pl.concat([part for _, part in parts], how="vertical_relaxed") if len(parts) > 1 else frame

    def _file(self, path: Path, wanted: Wanted) -> pl.DataFrame:
        kind = _kind(path)
        if kind == ".parquet":
            return _parquet(path, wanted)
        if kind in (".jsonl", ".ndjson", ".json"):
            return _json(path, wanted, self._encoding)
        separator = self._separator or SEPARATORS.get(kind) or self._fallback
        if separator is None:
            raise ValueError(
                f"{path.name}: cannot tell what this is. Known endings: .csv, .tsv, .parquet, .jsonl, .json, each plain or .gz; "
                "for other delimited text give `separator`."
            )

        def checked(names: list[str]) -> Sequence[str]:
            try:
                return wanted(names)
            except ValueError as error:
                raise ValueError(f"{error}{other_separator(names, separator)}") from None

        return read_rows(
            path,
            separator=separator,
            columns=self._columns,
            encoding=self._encoding,
            quoted=self._quoted,
            wanted=checked,
        )


def reader_of(*, separator: str | None = None) -> Reader:
    """A reader of UTF-8 files."""
    return Reader("utf-8", separator, None, True)


def files_of(path: Path | list[Path]) -> list[Path]:
    """The files that are meant: one, several, or those of a folder with an ending that is known, in the order of their names."""
    found: list[Path] = []
    for one in path if isinstance(path, list) else [path]:
        if not one.is_dir():
            found.append(one)
            continue
        inside = sorted(
            file for file in one.rglob("*") if file.is_file() and _kind(file) in KNOWN and file.name[0] not in "._"
        )
        if not inside:
            raise ValueError(
                f"`{one}` is a folder without a file of a known ending ({', '.join(KNOWN)}, plain or .gz)."
            )
        found += inside
    return found


def _kind(path: Path) -> str:
    kinds = [s for s in path.suffixes if s != ".gz"]
    return kinds[-1].lower() if kinds else ""


def _called(path: Path | list[Path] | None, dataset: str | None) -> str:
    """How messages name a source."""
    if path is None:
        return str(dataset)
    several = path if isinstance(path, list) else [path]
    return several[0].name if len(several) == 1 else f"{several[0].name} and {len(several) - 1} more"


def _parquet(path: Path, wanted: Wanted) -> pl.DataFrame:
    try:
        names = list(pl.read_parquet_schema(path))
        return pl.read_parquet(path, columns=list(wanted(names)))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path.name}: not a readable Parquet file ({' '.join(str(error).split())[:200]}).") from None


def _json(path: Path, wanted: Wanted, encoding: str) -> pl.DataFrame:
    """JSON lines, one list of objects, or one object of objects, whose keys become the column `item_id` where they have none."""
    rows = _json_rows(path, encoding)
    if not rows:
        raise ValueError(f"{path.name}: the file is empty.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    chosen = list(wanted(names))
    return pl.DataFrame([_series(name, [row.get(name) for row in rows]) for name in chosen])


def _json_rows(path: Path, encoding: str) -> list[dict[str, Any]]:
    text = read_text(path, encoding=encoding)
    head = text.lstrip()[:1]
    if head == "[" or (head == "{" and _kind(path) == ".json"):
        try:
            whole = json_of(text, path.name)
        except ValueError:
            if head == "[":
                raise
            whole = None  # JSON lines with the ending .json
        if isinstance(whole, list):
            for number, row in enumerate(whole, start=1):
                if not isinstance(row, dict):
                    raise ValueError(f"{path.name}: entry {number} must be an object, got {type(row).__name__}.")
            return whole
        if isinstance(whole, dict) and whole and all(isinstance(row, dict) for row in whole.values()):
            return [{"item_id": key, **row} for key, row in whole.items()]
    return [row for _, row in json_lines_of(text, path.name)]


def _series(name: str, values: list[Any]) -> pl.Series:
    """A column of a kind: what holds lists or objects beside other things becomes text."""
    if any(isinstance(value, list | dict) for value in values):
        values = [value if value is None else plain_text(value) for value in values]
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and not kinds <= {int, float}:
        values = [value if value is None else str(value) for value in values]
    return pl.Series(name, values, strict=False)


def _sequences(
    path: Path | list[Path] | None, encoding: str, separator: str | None
) -> tuple[list[str], list[list[str]]]:
    """Users and their items of lines 'USER ITEM ITEM …'. Raises ValueError naming file and line."""
    if path is None:
        raise ValueError("`data`: `layout: sequences` reads text files; give `path`.")
    users: list[str] = []
    sequences: list[list[str]] = []
    for file in files_of_text(path):
        for number, line in lines_of(read_text(file, encoding=encoding)):
            fields = [field.strip() for field in (line.split() if separator is None else line.split(separator))]
            fields = [field for field in fields if field]
            if not fields:
                continue
            if len(fields) < 2:
                raise ValueError(f"{file.name}:{number}: a line must be 'USER ITEM ITEM …', got {line.strip()[:60]!r}.")
            users.append(fields[0])
            sequences.append(fields[1:])
    if not users:
        raise ValueError(f"{_called(path, None)}: the file is empty.")
    return users, sequences


def files_of_text(path: Path | list[Path]) -> list[Path]:
    """The files that are meant, whatever their ending; those of a folder in the order of their names."""
    found: list[Path] = []
    for one in path if isinstance(path, list) else [path]:
        found += sorted(f for f in one.rglob("*") if f.is_file() and f.name[0] not in "._") if one.is_dir() else [one]
    return found


def _checked(asked: Sequence[tuple[str, str]], source: str) -> Wanted:
    """Columns that are asked for, as (key of the recipe, name). Raises ValueError for one that is not there."""

    def wanted(names: list[str]) -> Sequence[str]:
        for key, column in asked:
            if column not in names:
                raise ValueError(f"{source}: no column `{column}` (named by `{key}`).{near(column, names)}")
        return list(dict.fromkeys(column for _, column in asked))

    return wanted


def _shelf_columns(item_id: str, title: str | None, text: list[str] | None, source: str) -> Wanted:
    def wanted(names: list[str]) -> Sequence[str]:
        asked = [("item_id", item_id), *([("title", title)] if title else []), *(("text", t) for t in text or [])]
        for key, column in asked:
            if column not in names:
                raise ValueError(f"{source}: no column `{column}` (named by `data.{key}`).{near(column, names)}")
        others = text if text is not None else [c for c in names if c not in (item_id, title)]
        others = [c for c in others if c not in ("item_id", *(["title"] if title else []))]
        return list(dict.fromkeys([item_id, *([title] if title else []), *others]))

    return wanted


def _shelf(frame: pl.DataFrame, item_id: str, title: str | None) -> pl.DataFrame:
    columns = [pl.col(item_id).alias("item_id"), *([pl.col(title).alias("title")] if title else [])]
    return frame.select(*columns, *[pl.col(c) for c in frame.columns if c not in (item_id, title)])


def _condition(where: dict[str, Any] | str | None) -> pl.Expr | None:
    if not isinstance(where, str):
        return None
    try:
        return pl.sql_expr(where)
    except (pl.exceptions.PolarsError, BaseException) as error:  # Polars' parser panics at some texts
        if isinstance(error, KeyboardInterrupt):
            raise
        told = " ".join(str(error).split())[:200]
        raise ValueError(
            f"`data.where`: {where!r} is not a condition in SQL ({told}). E.g. \"event = 'purchase'\"."
        ) from None


def _names(where: dict[str, Any] | str | None, condition: pl.Expr | None) -> list[str]:
    if isinstance(where, dict):
        return list(where)
    return [] if condition is None else condition.meta.root_names()


def _filtered(frame: pl.DataFrame, where: Any, condition: pl.Expr | None, source: str) -> pl.DataFrame:
    """The rows that count. Raises ValueError where there is none, with the values that the column has."""
    if condition is None:
        kept = frame
        for column, wanted in where.items():
            several = [str(value) for value in (wanted if isinstance(wanted, list) else [wanted])]
            named = frame[column].cast(pl.String)
            for value in several:
                if value not in set(named.unique().to_list()):
                    counts = named.value_counts(sort=True).head(8).rows()
                    told = ", ".join(f"{name} ({count:,})" for name, count in counts)
                    raise ValueError(f"{source}: no row has `{column}` {value!r} (`data.where`). It has: {told}.")
            kept = kept.filter(pl.col(column).cast(pl.String).is_in(several))
    else:
        numbers = [
            name for name in condition.meta.root_names()
            if frame[name].dtype == pl.String and not frame[name].cast(pl.Float64, strict=False).is_null().any()
        ]  # fmt: skip
        typed = frame.with_columns(pl.col(numbers).cast(pl.Float64))
        try:
            kept = frame.filter(typed.select(condition.alias("keep"))["keep"])
        except (pl.exceptions.PolarsError, TypeError) as error:
            raise ValueError(f"`data.where`: {' '.join(str(error).split())[:200]}.") from None
    if kept.is_empty():
        raise ValueError(f"{source}: no row is left by `data.where`.")
    return kept


def _picked(frame: pl.DataFrame, chosen: dict[str, str]) -> pl.DataFrame:
    picked = frame.select([pl.col(column).alias(key) for key, column in chosen.items()])
    blank = [
        pl.when(pl.col(c) == "").then(None).otherwise(pl.col(c)).alias(c)
        for c, t in picked.schema.items()
        if t == pl.String
    ]
    return picked.with_columns(blank)


def _without(events: pl.DataFrame, missing: list[str]) -> tuple[pl.DataFrame, int]:
    """The rows whose user and item are none of these words, and how many were left out."""
    words = pl.Series(missing, dtype=pl.String)
    bad = pl.any_horizontal(
        pl.col(c).cast(pl.String).str.strip_chars().is_in(words.implode()) for c in ("user", "item")
    )
    kept = events.filter(~bad.fill_null(False))
    return kept, events.height - kept.height
