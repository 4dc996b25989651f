"""Reading text and JSON, plain or gzipped, with errors that name file and line.

A byte order mark is no part of a text. Only newlines end a line (`\\n`, `\\r\\n`): str.splitlines() also cuts at U+2028, at 0x85
and at form feeds, which stand in titles.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

# The longest come first: UTF-32's mark begins with UTF-16's.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def open_bytes(path: Path) -> IO[bytes]:
    """Open a plain or gzipped file."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def read_text(path: Path, *, encoding: str | None = None) -> str:
    """Read a whole text file, without its byte order mark.

    `encoding`: where the user has a key of that name, its value; without it the text must be UTF-8. Raises ValueError naming file and
    line when it is not in that encoding.
    """
    with open_bytes(path) as file:
        try:
            raw = file.read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path.name}: damaged gzip file ({error}).") from None
    return _decoded(raw, path.name, encoding)


def _decoded(raw: bytes, name: str, encoding: str | None) -> str:
    asked = encoding or "utf-8"
    mark = next((mark for mark in MARKS if raw.startswith(mark)), b"")
    kind = MARKS.get(mark, "")
    try:
        wide = codecs.lookup(asked).name.startswith(("utf-16", "utf-32"))
    except LookupError:
        raise ValueError(
            f"`encoding`: there is none named {asked!r}. Known are utf-8, utf-16, latin-1, cp1252, …"
        ) from None
    if kind.startswith(("utf-16", "utf-32")) and not wide:
        way = "Save it as UTF-8." if encoding is None else f"Say `encoding: {kind}`."
        raise ValueError(
            f"{name}: this is {kind.upper()} text (its first bytes are {mark.hex(' ')}), not {asked}. {way}"
        )
    try:
        text = (raw[len(mark) :] if kind == "utf-8" else raw).decode(asked)
    except UnicodeError as error:
        start, reason = (error.start, error.reason) if isinstance(error, UnicodeDecodeError) else (0, str(error))
        line = raw[:start].count(b"\n") + 1
        other = "latin-1" if asked.lower().replace("_", "-") in ("utf-8", "utf8", "ascii") else "utf-8"
        way = "Save it as UTF-8." if encoding is None else f"Say `encoding: {other}`, or convert it."
        raise ValueError(f"{name}:{line}: not {asked} text ({reason}). {way}") from None
    except LookupError as error:  # 'hex' and 'rot13' are codecs, too
        raise ValueError(f"`encoding`: {error}.") from None
    return text.removeprefix("\ufeff")


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line) for each line that is not blank, without its newline."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def read_lines(path: Path, *, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) for each line of a file that is not blank. Raises what `read_text` does."""
    yield from lines_of(read_text(path, encoding=encoding))


def stream_lines(path: Path) -> Iterator[tuple[int, str]]:
    """As `read_lines` of UTF-8, a line at a time, for files that do not fit into memory."""
    with open_bytes(path) as file:
        try:
            for number, raw in enumerate(file, 1):
                line = _decoded(raw, path.name, None) if number == 1 else _line(raw, number, path.name)
                if line.strip():
                    yield number, line.rstrip("\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path.name}: damaged gzip file ({error}).") from None


def _line(raw: bytes, number: int, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}:{number}: not UTF-8 text (byte {error.start} of the line). Save the file as UTF-8."
        ) from None


def first_line(error: BaseException) -> str:
    """The first line of what an error says, its kind where it says nothing: libraries' errors are pages."""
    return next((line.strip() for _, line in lines_of(str(error))), type(error).__name__)


def read_json(path: Path, *, unique: bool = False) -> Any:
    """Read a JSON file. Raises ValueError naming file and line, or, with `unique`, a key that an object holds twice."""
    return json_of(read_text(path), path.name, unique=unique)


def json_of(text: str, name: str, *, unique: bool = False) -> Any:
    """What a text says in JSON; `name`: of its file. Raises what `read_json` does."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"{name}: `{twice}` is there twice.")
        return found

    try:
        return _whole(json.loads(text, object_pairs_hook=once if unique else None), text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}:{error.lineno}: not valid JSON: {error.msg}.") from None
    except RecursionError:
        raise ValueError(f"{name}: not readable JSON: lists or objects are nested too deeply.") from None


def read_json_lines(path: Path, *, encoding: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for each line that is not blank. Raises ValueError naming file and line."""
    yield from json_lines_of(read_text(path, encoding=encoding), path.name)


def json_lines_of(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a text of JSON lines, as `read_json_lines` gives them; `name`: of its file."""
    for number, line in lines_of(text):
        try:
            row = _whole(json.loads(line), line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}:{number}: not valid JSON: {error.msg}.") from None
        except RecursionError:
            raise ValueError(f"{name}:{number}: not readable JSON: nested too deeply.") from None
        if not isinstance(row, dict):
            raise ValueError(f"{name}:{number}: a line must hold one JSON object, got {type(row).__name__}.")
        yield number, row


def _whole(value: Any, text: str) -> Any:
    """A value of JSON where half of a character, as a text that was cut leaves it, is U+FFFD: no file can hold the half. `text`: what it was read from."""
    return _mended(value) if "\\ud" in text or "\\uD" in text else value


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mended(one) for one in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(one) for key, one in value.items()}
    return value
