"""Reading source files: tables, from a folder, a zip or the network, with errors that name file and line."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl

from rectune.runtime.text_files import read_text


def read_rows(
    path: Path,
    *,
    separator: str,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    quoted: bool = True,
    escape: str | None = None,
    mend: Callable[[str], str] | None = None,
) -> pl.DataFrame:
    """Read delimited text as a table of strings; `columns` for a file without a header.

    `escape` is the character before a quote that belongs to a field; `mend` puts right what is known to be wrong in a source.

    Raises ValueError naming file and line for a row with another number of fields.
    """
    import csv
    import io

    text = read_text(path, encoding=encoding).removeprefix("\ufeff")
    text = text if mend is None else mend(text)
    if len(separator) > 1:  # MovieLens 1M separates with '::'
        rows: Iterator[list[str]] = (line.split(separator) for line in text.splitlines())
        return _table(((i, row) for i, row in enumerate(rows, start=1)), path, columns)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        escapechar=escape,
        strict=True,
    )
    try:
        return _table(((reader.line_num, row) for row in reader), path, columns)
    except csv.Error as error:
        raise ValueError(f"{path.name}:{reader.line_num}: {error}.") from None


def _table(rows: Iterator[tuple[int, list[str]]], path: Path, columns: Sequence[str] | None) -> pl.DataFrame:
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
            raise ValueError(f"{path.name}:{line}: {len(row)} fields, but {len(names)} columns ({', '.join(names)}).")
        data.append(row)
    if names is None:
        raise ValueError(f"{path.name}: the file is empty.")
    return pl.DataFrame(data, schema=dict.fromkeys(names, pl.String), orient="row")


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
    except zipfile.BadZipFile as error:
        shutil.rmtree(work, ignore_errors=True)
        raise ValueError(f"{archive.name}: damaged zip file ({error}).") from None
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
