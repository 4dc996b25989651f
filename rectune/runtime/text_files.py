"""Reading text and JSON, plain or gzipped, with errors that name file and line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def open_bytes(path: Path) -> IO[bytes]:
    """Open a plain or gzipped file."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def read_text(path: Path, *, encoding: str = "utf-8") -> str:
    """Read a whole text file. Raises ValueError naming file and line when it is not in `encoding`."""
    with open_bytes(path) as file:
        try:
            raw = file.read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path.name}: damaged gzip file ({error}).") from None
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path.name}:{line}: not {encoding} text ({error.reason}). Say `encoding: latin-1`, or convert it."
        ) from None


def read_json(path: Path, *, unique: bool = False) -> Any:
    """Read a JSON file. Raises ValueError naming file and line, or, with `unique`, a key that an object holds twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"{path.name}: `{twice}` is there twice.")
        return found

    try:
        return json.loads(read_text(path), object_pairs_hook=once if unique else None)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name}:{error.lineno}: not valid JSON: {error.msg}.") from None


def read_json_lines(path: Path, *, encoding: str = "utf-8") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for each line that is not blank. Raises ValueError naming file and line."""
    for number, line in enumerate(read_text(path, encoding=encoding).removeprefix("\ufeff").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name}:{number}: not valid JSON: {error.msg}.") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path.name}:{number}: a line must hold one JSON object, got {type(row).__name__}.")
        yield number, row
