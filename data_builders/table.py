"""Your own log: CSV, TSV, Parquet or JSON, or a data set of the Hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
from rectune.data_builders.reader import Reader, Wanted, files_of, rows_in

from rectune.log.cleaning import Repeats, from_sequences, make_log, with_shown
from rectune.log.log import Log
from rectune.runtime.near import near
from rectune.runtime.text_files import lines_of, read_text

ALL_ROWS = re.compile(r'"(Agg|Over|Window)"')  # in a condition that a row cannot answer alone
Pieces = Callable[[], Iterator[pl.DataFrame]]  # a table that is read anew at each call, piece by piece


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
    shown: dict[str, Any] | str | None = None,
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
    where that is not clear. `where`: which rows count, {column: value or list of values} or a condition in SQL. `shown`: which rows, in the same forms,
    say that an item was shown to a user, whether it was taken or not (`negatives: shown` rejects them). `missing`: words that
    stand for no user or no item; their rows are left out. `layout: sequences`: lines 'USER ITEM ITEM …', oldest first.
    `items_path` or `items_dataset` hold the items: `item_id` (default: the name given as `item`) and `title` name the columns, `text`
    the other columns to keep (default: all). `separator` is for text of another form than its ending says; `columns` name those of a
    file without a header line; `quoted: false` where quotes are text; `items_separator`, `items_columns` and `items_encoding` the
    same for the items.
    """
    source = _called(path, dataset)
    reader = Reader(encoding, separator, columns, quoted, ids=(user, item))
    shelf_reader = Reader(items_encoding or encoding, items_separator, items_columns, quoted, fallback=separator)
    shelf = None
    if items_path is not None or items_dataset is not None:
        name, called = item_id or item, _called(items_path, items_dataset)
        items = shelf_reader.read(
            items_path, items_dataset, dataset_split, "items_path", shelf_columns(name, title, text, called)
        )
        shelf = shelf_of(items, name, title)
    if shown is not None and (where is None or time is None or layout == "sequences"):
        raise ValueError(
            f"{source}: `data.shown` says which rows are items that were shown, so `data.where` must say which are events, and `data.time` name the "
            "column of their times."
        )
    if layout == "sequences":
        unread = {
            "where": where,
            "time": time,
            "time_format": time_format,
            "rating": rating,
            "columns": columns,
            "dataset": dataset,
        }
        if given := [key for key, value in unread.items() if value is not None]:
            raise ValueError(
                f"{source}: `layout: sequences` reads lines 'USER ITEM ITEM …' and has no use for {', '.join(f'`data.{key}`' for key in given)}. Leave it out."
            )
        users, sequences, left_out = _sequences(path, encoding, separator, missing or [])
        made = from_sequences(
            users, sequences, shelf, source=source, user_core=user_core, item_core=item_core, repeats=repeats
        )
        return _noting(made, left_out)
    chosen = {"user": user, "item": item, "time": time, "rating": rating}
    dropped = [0]

    def rows(which: dict[str, Any] | str | None, key: str, without: str = "") -> Iterator[pl.DataFrame]:
        condition = _condition(which, key)
        named = {k: v for k, v in chosen.items() if v is not None and k != without}
        asked = [*((f"data.{k}", v) for k, v in named.items()), *((key, name) for name in _names(which, condition))]

        def pieces() -> Iterator[pl.DataFrame]:
            return reader.pieces(path, dataset, dataset_split, "path", _checked(asked, source))

        return _without(_picked(_filtered(pieces, which, condition, source, key), named), missing, dropped, source)

    made = make_log(
        rows(where, "data.where"), shelf, source=source, user_core=user_core, item_core=item_core, repeats=repeats,
        time_format=time_format,
    )  # fmt: skip
    made = _noting(made, dropped[0])
    if shown is None:
        return made
    told = f"{source}, rows of `data.shown`"
    return with_shown(made, rows(shown, "data.shown", without="rating"), source=told, time_format=time_format)


def _noting(made: Log, left_out: int) -> Log:
    """The log, with how many of its events were left out as one of `missing`."""
    made.notes.update({"rows_without_user_or_item": left_out} if left_out else {})
    return made


def size_of(
    *, path: Path | list[Path] | None = None, layout: Literal["rows", "sequences"] = "rows", **_: Any
) -> tuple[int, bool] | None:
    """How many rows the source holds, and whether they are counted (Parquet) or told from the first megabyte (text); None where neither can be."""
    return None if path is None or layout != "rows" else rows_in(files_of(path))


def _called(path: Path | list[Path] | None, dataset: str | None) -> str:
    """How messages name a source."""
    if path is None:
        return str(dataset)
    several = path if isinstance(path, list) else [path]
    return several[0].name if len(several) == 1 else f"{several[0].name} and {len(several) - 1} more"


def _sequences(
    path: Path | list[Path] | None, encoding: str, separator: str | None, missing: Sequence[str]
) -> tuple[list[str], list[list[str]], int]:
    """Users and their items of lines 'USER ITEM ITEM …', without the words that are `missing`, and how many events these were. Raises ValueError
    naming file and line."""
    if path is None:
        raise ValueError("`data`: `layout: sequences` reads text files; give `path`.")
    users: list[str] = []
    sequences: list[list[str]] = []
    events = 0
    for file in files_of_text(path):
        for number, line in lines_of(read_text(file, encoding=encoding)):
            fields = [field.strip() for field in (line.split() if separator is None else line.split(separator))]
            fields = [field for field in fields if field]
            if not fields:
                continue
            if len(fields) < 2:
                raise ValueError(f"{file.name}:{number}: a line must be 'USER ITEM ITEM …', got {line.strip()[:60]!r}.")
            events += len(fields) - 1
            if fields[0] not in missing:
                users.append(fields[0])
                sequences.append([field for field in fields[1:] if field not in missing])
    if not events:
        raise ValueError(f"{_called(path, None)}: the file is empty.")
    kept = sum(map(len, sequences))
    if not kept:
        raise ValueError(f"{_called(path, None)}: every event has one of `data.missing` as user or item.")
    return users, sequences, events - kept


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


def shelf_columns(item_id: str, title: str | None, text: list[str] | None, source: str) -> Wanted:
    """Columns of an item table: the id, the title, and `text` or all others. Raises ValueError for one that is not there."""

    def wanted(names: list[str]) -> Sequence[str]:
        asked = [("item_id", item_id), *([("title", title)] if title else []), *(("text", t) for t in text or [])]
        for key, column in asked:
            if column not in names:
                raise ValueError(f"{source}: no column `{column}` (named by `data.{key}`).{near(column, names)}")
        others = text if text is not None else [c for c in names if c not in (item_id, title)]
        others = [c for c in others if c not in ("item_id", *(["title"] if title else []))]
        return list(dict.fromkeys([item_id, *([title] if title else []), *others]))

    return wanted


def shelf_of(frame: pl.DataFrame, item_id: str, title: str | None) -> pl.DataFrame:
    """The item table by the names that a log has for its columns: `item_id`, `title`, and the others as they are."""
    columns = [pl.col(item_id).alias("item_id"), *([pl.col(title).alias("title")] if title else [])]
    return frame.select(*columns, *[pl.col(c) for c in frame.columns if c not in (item_id, title)])


def _condition(where: dict[str, Any] | str | None, key: str) -> pl.Expr | None:
    if not isinstance(where, str):
        return None
    try:
        return pl.sql_expr(where)
    except (pl.exceptions.PolarsError, BaseException) as error:  # Polars' parser panics at some texts
        if isinstance(error, KeyboardInterrupt):
            raise
        told = " ".join(str(error).split())[:200]
        raise ValueError(
            f"`{key}`: {where!r} is not a condition in SQL ({told}). E.g. \"event = 'purchase'\"."
        ) from None


def _names(where: dict[str, Any] | str | None, condition: pl.Expr | None) -> list[str]:
    if isinstance(where, dict):
        return list(where)
    return [] if condition is None else condition.meta.root_names()


def _filtered(
    pieces: Pieces, where: dict[str, Any] | str | None, condition: pl.Expr | None, source: str, key: str
) -> Iterator[pl.DataFrame]:
    """The rows that count. Raises ValueError where there is none, with the values that the column has."""
    if condition is not None:
        keep = _by_condition(pieces, condition, key)
    elif isinstance(where, dict):
        keep = _by_values(pieces, where, source, key)
    else:
        yield from pieces()
        return
    apart = condition is None or not ALL_ROWS.search(condition.meta.serialize(format="json"))
    rows = 0
    for piece in pieces() if apart else [pl.concat(pieces(), how="vertical_relaxed")]:  # MAX(time) is that of all rows
        kept = keep(piece)
        rows += kept.height
        yield kept
    if not rows:
        raise ValueError(f"{source}: no row is left by `{key}`.")


def _by_condition(pieces: Pieces, condition: pl.Expr, key: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Rows of which a condition in SQL holds; a column of texts that are all numbers is compared as numbers."""
    numbers: list[str] | None = None
    for piece in pieces():
        named = condition.meta.root_names() if numbers is None else numbers
        numbers = [
            name
            for name in named
            if piece[name].dtype == pl.String and not piece[name].cast(pl.Float64, strict=False).is_null().any()
        ]
        if not numbers:
            break

    def keep(piece: pl.DataFrame) -> pl.DataFrame:
        typed = piece.with_columns(pl.col(numbers or []).cast(pl.Float64))
        try:
            return piece.filter(typed.select(condition.alias("keep"))["keep"])
        except (pl.exceptions.PolarsError, TypeError) as error:
            raise ValueError(f"`{key}`: {' '.join(str(error).split())[:200]}.") from None

    return keep


def _by_values(pieces: Pieces, where: dict[str, Any], source: str, key: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Rows whose columns have one of the values that are wanted. Raises ValueError for a value that no row has."""
    wanted = {c: [_word(value) for value in (v if isinstance(v, list) else [v])] for c, v in where.items()}
    missing = {(column, value) for column, values in wanted.items() for value in values}
    for piece in pieces():
        for column in {column for column, _ in missing}:
            there = set(piece[column].cast(pl.String).unique().to_list())
            missing -= {(column, value) for value in wanted[column] if value in there}
        if not missing:
            break
    for column, value in sorted(missing):
        counts = pl.concat(piece[column].cast(pl.String).value_counts() for piece in pieces())
        most = (
            counts.group_by(column).agg(pl.col("count").sum()).sort("count", column, descending=[True, False]).head(8)
        )
        told = ", ".join(f"{name} ({count:,})" for name, count in most.rows())
        raise ValueError(f"{source}: no row has `{column}` {value!r} (`{key}`). It has: {told}.")
    return lambda piece: piece.filter(pl.all_horizontal(pl.col(c).cast(pl.String).is_in(v) for c, v in wanted.items()))


def _word(value: Any) -> str:
    """A value as a column's text has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _picked(pieces: Iterator[pl.DataFrame], chosen: dict[str, str]) -> Iterator[pl.DataFrame]:
    """The columns by the names that a log has for them; an empty text is a value that is missing."""
    for piece in pieces:
        picked = piece.select([pl.col(column).alias(key) for key, column in chosen.items()])
        texts = [c for c, kind in picked.schema.items() if kind == pl.String and (picked[c] == "").any()]
        if texts:
            picked = picked.with_columns(
                pl.when(pl.col(c) == "").then(None).otherwise(pl.col(c)).alias(c) for c in texts
            )
        yield picked


def _without(
    pieces: Iterator[pl.DataFrame], missing: list[str] | None, dropped: list[int], source: str
) -> Iterator[pl.DataFrame]:
    """The rows whose user and item are none of these words; how many were left out is added to `dropped[0]`."""
    if not missing:
        yield from pieces
        return
    words = pl.Series(missing, dtype=pl.String).implode()
    left = 0
    for piece in pieces:
        bad = pl.any_horizontal(pl.col(c).cast(pl.String).str.strip_chars().is_in(words) for c in ("user", "item"))
        kept = piece.filter(~bad.fill_null(False))
        dropped[0] += piece.height - kept.height
        left += kept.height
        yield kept
    if dropped[0] and not left:
        raise ValueError(f"{source}: every row has one of `data.missing` as user or item.")
