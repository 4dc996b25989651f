"""Tables out of files and data sets, in pieces: what a source is like, and which of its columns are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
from rectune.data_builders.files import PIECE, other_separator, rows_in_pieces

from rectune.log.item_table import plain_text
from rectune.runtime.text_files import json_lines_of, json_of, read_text

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
KNOWN = (".csv", ".tsv", ".tab", ".parquet", ".jsonl", ".ndjson", ".json")
NOTHING = "__HIVE_DEFAULT_PARTITION__"  # how Hive writes null into the name of a folder
Wanted = Callable[[list[str]], Sequence[str]]


class Reader:
    """Reads files of one form: what text of them is like. `ids`: columns that must be of one kind in all files."""

    def __init__(
        self, encoding: str, separator: str | None, columns: list[str] | None, quoted: bool, fallback: str | None = None,
        ids: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._encoding, self._separator, self._columns, self._quoted = encoding, separator, columns, quoted
        self._fallback = fallback  # for an ending that tells nothing
        self._ids = ids

    def read(
        self, path: Path | list[Path] | None, dataset: str | None, split: str, key: str, wanted: Wanted
    ) -> pl.DataFrame:
        """All files as one table of the wanted columns."""
        pieces = list(self.pieces(path, dataset, split, key, wanted))
        return pl.concat(pieces, how="vertical_relaxed") if len(pieces) > 1 else pieces[0]

    def pieces(
        self, path: Path | list[Path] | None, dataset: str | None, split: str, key: str, wanted: Wanted
    ) -> Iterator[pl.DataFrame]:
        """The same, at least one table of at most four million rows after the other; JSON is read a file at a time."""
        if (path is None) == (dataset is None):
            raise ValueError(f"`data`: give either `{key}` or `{key.replace('path', 'dataset')}`.")
        if path is None:
            from datasets import load_dataset

            for batch in load_dataset(dataset, split=split).with_format("arrow").iter(batch_size=PIECE):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield frame.select(wanted(frame.columns))
            return
        first: tuple[Path, pl.DataFrame] | None = None
        for file in files_of(path):
            for piece in self._file(file, wanted):
                first = first or (file, piece.clear())
                if piece.columns != first[1].columns:
                    raise ValueError(
                        f"{file.name}: its columns are {', '.join(piece.columns)}, but those of {first[0].name} are {', '.join(first[1].columns)}."
                    )
                for column in self._ids:
                    here, there = piece.schema[column], first[1].schema[column]
                    if _kind_of(here) != _kind_of(there):
                        raise ValueError(
                            f"{file.name}: `{column}` holds {here}, but in {first[0].name} it holds {there}, so that one id would be two texts. "
                            "Write it alike in all files."
                        )
                yield piece

    def _file(self, path: Path, wanted: Wanted) -> Iterator[pl.DataFrame]:
        kind = _kind(path)
        if kind == ".parquet":
            return _parquet(path, wanted)
        if kind in (".jsonl", ".ndjson", ".json"):
            return iter([_json(path, wanted, self._encoding)])
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

        return rows_in_pieces(
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


def rows_in(files: Sequence[Path]) -> tuple[int, bool] | None:
    """How many rows plain files hold, and whether all are counted; None where a file of another kind is among them."""
    rows, exact = 0, True
    for file in files:
        if _kind(file) == ".parquet":
            rows += int(pl.scan_parquet(file, glob=False).select(pl.len()).collect().item())
        elif file.suffix in SEPARATORS:
            with file.open("rb") as text:
                head = text.read(2**20)
            lines, exact = head.count(b"\n"), exact and len(head) < 2**20
            rows += round(lines * file.stat().st_size / max(len(head), 1)) - 1  # the header
        else:
            return None
    return max(rows, 0), exact


def _kind(path: Path) -> str:
    kinds = [s for s in path.suffixes if s != ".gz"]
    return kinds[-1].lower() if kinds else ""


def _kind_of(kind: pl.DataType) -> str:
    """Kinds of ids: the same id is one text only within one of them."""
    return (
        "whole numbers"
        if kind.is_integer()
        else "numbers"
        if kind.is_numeric()
        else "texts"
        if kind == pl.String
        else str(kind)
    )


def _parquet(path: Path, wanted: Wanted) -> Iterator[pl.DataFrame]:
    """The rows of a Parquet file; columns that it lacks come from folders KEY=VALUE on its path, as texts."""
    try:
        frame = pl.scan_parquet(path, hive_partitioning=False, glob=False)
        names = frame.collect_schema().names()
        hive = {key: value for key, value in _partition(path).items() if key not in names}
        chosen = list(wanted([*names, *hive]))
        literal = [
            pl.lit(None if hive[c] == NOTHING else unquote(hive[c]), pl.String).alias(c) if c in hive else pl.col(c)
            for c in chosen
        ]
        yield frame.head(0).select(literal).collect()
        yield from frame.select(literal).collect_batches(chunk_size=PIECE, maintain_order=True)
    except BaseException as error:  # Polars' reader panics at some damage
        if isinstance(error, ValueError | GeneratorExit | KeyboardInterrupt | SystemExit):
            raise
        raise ValueError(f"{path.name}: not a readable Parquet file ({' '.join(str(error).split())[:200]}).") from None


def _partition(path: Path) -> dict[str, str]:
    """What the folders right above a file say of all its rows: KEY=VALUE, as Hive and Spark write them."""
    found = {}
    for part in reversed(path.parent.parts):
        key, mark, value = part.partition("=")
        if not key or not mark:
            break
        found[key] = value
    return found


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
