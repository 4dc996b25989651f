"""Reading source files: tables, from a folder, a zip or the network, with errors that name file and line."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import mmap
import os
import re
import shutil
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from rectune.runtime.text_files import read_text

PIECE = 4_000_000  # rows that Polars hands out at once
LINES = 200_000  # the same of Python
UNUSED = "\x1f"  # the unit separator, which no source holds


def read_rows(path: Path, **how: Any) -> pl.DataFrame:
    """Read delimited text as one table; `how` is that of `rows_in_pieces`."""
    pieces = list(rows_in_pieces(path, **how))
    return pl.concat(pieces) if len(pieces) > 1 else pieces[0]


def rows_in_pieces(
    path: Path,
    *,
    separator: str,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    quoted: bool = True,
    escape: str | None = None,
    mend: Callable[[str], str] | None = None,
    wanted: Callable[[list[str]], Sequence[str]] | None = None,
) -> Iterator[pl.DataFrame]:
    """Read delimited text as tables of strings, at least one, white space around values left out; `columns` for a file without a header.

    `escape` is the character before a quote that belongs to a field; `mend` puts right what is known to be wrong in a source;
    `wanted(names)` gives the columns that are read, others are not parsed into values.
    Polars reads it, twice, so that nothing is handed out of a file that it cannot read to its end, or that has a row which is too
    short: those are read by Python, line by line.

    Raises ValueError naming file and line for a row with another number of fields, and for quotes that do not close.
    """
    if escape is None and mend is None:
        frame = _by_polars(path, separator, columns, encoding, quoted, wanted)
        if frame is not None:
            found = False
            for piece in frame.collect_batches(chunk_size=PIECE, maintain_order=True):
                found = True
                yield _stripped(piece)
            if not found:
                yield frame.collect()
            return
    for piece in _line_by_line(path, separator, columns, encoding, quoted, escape, mend):
        yield _stripped(piece if wanted is None else piece.select(wanted(piece.columns)))


def _by_polars(
    path: Path, separator: str, columns: Sequence[str] | None, encoding: str, quoted: bool,
    wanted: Callable[[list[str]], Sequence[str]] | None,
) -> pl.LazyFrame | None:  # fmt: skip
    """The table as Polars reads it, or None where it does not, or where a row may be too short."""
    source: Path | bytes = path
    if path.suffix == ".gz" or encoding.lower().replace("_", "-") not in ("utf-8", "utf8") or len(separator) > 1:
        text = read_text(path, encoding=encoding)
        if len(separator) > 1:  # MovieLens 1M separates with '::'
            if UNUSED in text or '"' in text:
                return None
            text, separator, quoted = text.replace(separator, UNUSED), UNUSED, False
        source = text.encode()
    raw = source if isinstance(source, bytes) else _mapped(source)
    names = _header(raw, separator, quoted) if columns is None else list(columns)
    if raw is None or names is None or len(separator) != 1:
        return None
    chosen = list(names if wanted is None else wanted(names))
    first, last = names[0], names[-1]  # a short row has no value in its last column, an empty line none in its first
    try:
        frame = pl.scan_csv(
            source, separator=separator, has_header=columns is None, new_columns=names, quote_char='"' if quoted else None,
            infer_schema=False, empty_string_is_null=False, raise_if_empty=True, glob=False,
        )  # fmt: skip
        whole = frame.select(
            pl.len().alias("rows"),
            (pl.col(first) == "").any().alias("first"),
            (pl.col(last) == "").any().alias("last"),
            *(pl.col(name).null_count().alias(f"nulls {i}") for i, name in enumerate(chosen)),
        ).collect(engine="streaming")
    except (pl.exceptions.PolarsError, ValueError):
        return None
    if whole["first"].item() and _blank_lines(raw):
        return None
    ends = len(names) > 1 and whole["last"].item()
    if ends and not _whole(raw, separator, len(names), whole["rows"].item(), columns):
        return None
    return frame.select(chosen)


def _mapped(path: Path) -> mmap.mmap | None:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else None


def _header(raw: mmap.mmap | bytes | None, separator: str, quoted: bool) -> list[str] | None:
    """The names in the first line, or None where they are not to be told at a glance."""
    if raw is None:
        return None
    first = raw[: 2**20].split(b"\n", 1)[0]
    try:
        text = first.decode("utf-8").removeprefix("\ufeff").rstrip("\r")
    except UnicodeDecodeError:
        return None
    try:
        row = next(csv.reader([text], delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE), [])
    except csv.Error:  # line ends of an old Macintosh, or a line without end
        return None
    names = [name.strip() for name in row]
    return names if names != [""] and names and len(set(names)) == len(names) else None


def _blank_lines(raw: mmap.mmap | bytes) -> bool:
    """Whether an empty line stands between others."""
    end = len(raw)
    while end and raw[end - 1] in b"\r\n":
        end -= 1
    return any(raw.find(mark, 0, end) >= 0 for mark in (b"\n\n", b"\n\r\n"))


def _whole(raw: mmap.mmap | bytes, separator: str, names: int, rows: int, columns: Sequence[str] | None) -> bool:
    """Whether every row has all of its fields, told by counting; False where quotes may hide separators."""
    if raw.find(b'"') >= 0:
        return False
    lines, found = rows + (1 if columns is None else 0), 0
    for start in range(0, len(raw), 2**24):
        found += raw[start : start + 2**24].count(separator.encode())
    return found == lines * (names - 1)


def _stripped(frame: pl.DataFrame) -> pl.DataFrame:
    """The table without white space around values."""
    marks = (" ", "\t", "\r", "\n")
    blank = [
        edge
        for c in frame.columns
        for s in marks
        for edge in (pl.col(c).str.starts_with(s), pl.col(c).str.ends_with(s))
    ]
    any_blank = frame.select(pl.any_horizontal(blank).any()).item()
    return frame.with_columns(pl.col(pl.String).str.strip_chars()) if any_blank else frame


def _line_by_line(
    path: Path, separator: str, columns: Sequence[str] | None, encoding: str, quoted: bool, escape: str | None,
    mend: Callable[[str], str] | None,
) -> Iterator[pl.DataFrame]:  # fmt: skip
    """The table as Python reads it, slowly, with the line of what is wrong."""
    text = read_text(path, encoding=encoding)
    text = text if mend is None else mend(text)
    if len(separator) > 1:
        rows: Iterator[list[str]] = (line.rstrip("\r").split(separator) for line in text.split("\n"))
        yield from _tables(((i, row) for i, row in enumerate(rows, start=1)), path, columns, separator)
        return
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        escapechar=escape,
        strict=True,
    )
    begun = 1  # the line on which the row begins that is read now: a quote that is not closed takes others into it

    def numbered() -> Iterator[tuple[int, list[str]]]:
        nonlocal begun
        for row in reader:
            yield begun, row
            begun = reader.line_num + 1

    try:
        yield from _tables(numbered(), path, columns, separator)
    except csv.Error as error:
        told = " Where quotes are text, say `quoted: false`." if quoted and '"' in text else ""
        said = str(error)
        if reader.line_num > begun:
            said = f"a quote is opened in this row, and {'never closed' if 'end of data' in said else f'by line {reader.line_num} {said}'}"
        raise ValueError(f"{path.name}:{begun}: {said}.{told}") from None


def _tables(
    rows: Iterator[tuple[int, list[str]]], path: Path, columns: Sequence[str] | None, separator: str
) -> Iterator[pl.DataFrame]:
    names = list(columns) if columns is not None else None
    data: list[list[str]] = []
    for line, row in rows:
        if not row or row == [""]:
            continue
        if names is None:
            names = [name.strip() for name in row]
            if len(set(names)) < len(names):
                raise ValueError(f"{path.name}:{line}: a column name is given twice: {', '.join(names)}.")
            continue
        if len(row) != len(names):
            raise ValueError(
                f"{path.name}:{line}: {len(row)} fields, but {len(names)} columns ({', '.join(names)[:200]}).{other_separator(row, separator)}"
            )
        data.append(row)
        if len(data) == LINES:
            yield pl.DataFrame(data, schema=dict.fromkeys(names, pl.String), orient="row")
            data.clear()
    if names is None:
        raise ValueError(f"{path.name}: the file is empty.")
    yield pl.DataFrame(data, schema=dict.fromkeys(names, pl.String), orient="row")


def other_separator(fields: Sequence[str], separator: str) -> str:
    """What to say where a line is one field that holds another separator, else ''."""
    if len(fields) != 1:
        return ""
    found = [other for other in ("\t", ";", ",", "|", "::") if other != separator and other in fields[0]]
    return f" The line looks separated by {found[0]!r}: say `separator: {json.dumps(found[0])}`." if found else ""


def find_file(folder: Path, *patterns: str) -> Path:
    """Return the one file below `folder` that matches the first pattern with a match (plain or .gz).

    Raises FileNotFoundError when none does and ValueError when several do.
    """
    for pattern in patterns:
        found = sorted({*folder.glob(pattern), *folder.glob(f"{pattern}.gz")})
        if len(found) > 1:
            raise ValueError(
                f"{folder}: several files match `{pattern}`: {', '.join(f.name for f in found)}. Name one."
            )
        if found:
            return found[0]
    if not folder.is_dir():
        raise FileNotFoundError(f"`{folder}` is not a folder.")
    raise FileNotFoundError(f"{folder}: no file `{patterns[0]}` (plain or .gz).")


def optional_file(folder: Path, *patterns: str) -> Path | None:
    """Like `find_file`, but None when nothing matches."""
    try:
        return find_file(folder, *patterns)
    except FileNotFoundError:
        return None


# What the library says of a zip that it cannot unpack.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


def unzip(archive: Path, into: Path) -> Path:
    """Unpack a zip into a new folder and return it. Raises ValueError for paths that lead out of it, or a damaged zip."""
    work = into.with_name(f"{into.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                if name.startswith("/") or ".." in Path(name).parts or ":" in name:
                    raise ValueError(f"{archive.name}: the path `{name}` leads out of the archive; it is not unpacked.")
            file.extractall(work)
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        if isinstance(error, DAMAGED):
            raise ValueError(f"{archive.name}: damaged zip file, or one that asks for a password ({error}).") from None
        raise
    shutil.rmtree(into, ignore_errors=True)
    os.replace(work, into)
    return into


def download(url: str, file: Path, *, md5: str) -> Path:
    """Fetch `url` with a progress bar; check its size against the server's word and its MD5 against `md5`.

    Nothing is left behind when a check fails. Raises ValueError when size or checksum differ, OSError when the network
    does.
    """
    from tqdm import tqdm

    file.parent.mkdir(parents=True, exist_ok=True)
    work = file.with_name(f"{file.name}.partial")
    digest, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with urllib.request.urlopen(url, timeout=60) as source, work.open("wb") as out:
            total = int(source.headers.get("Content-Length") or 0)
            with tqdm(total=total or None, unit="B", unit_scale=True, desc=file.name) as bar:
                while chunk := source.read(1 << 20):
                    out.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                    bar.update(len(chunk))
        if total and size != total:
            raise ValueError(f"{url}: {size} bytes came, but {total} were announced. Try again.")
        if digest.hexdigest() != md5:
            raise ValueError(f"{url}: its MD5 is {digest.hexdigest()}, but {md5} was expected.")
        os.replace(work, file)
    finally:
        work.unlink(missing_ok=True)
    return file


def published_md5(url: str) -> str:
    """The checksum in a small MD5 file ('MD5 (name) = hash' or 'hash  name'). Raises ValueError when it holds none."""
    with urllib.request.urlopen(url, timeout=60) as source:
        text = source.read(1000).decode("ascii", "replace")
    found = re.search(r"\b[0-9a-f]{32}\b", text)
    if found is None:
        raise ValueError(f"{url}: it holds no MD5 checksum.")
    return found.group()
