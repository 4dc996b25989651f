"""What is kept between runs: downloads, and whatever a model once made of a text, under the hash of that text."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

from rectune.runtime.told import ToldOnce

TABLE = "CREATE TABLE IF NOT EXISTS made (key TEXT PRIMARY KEY, value BLOB NOT NULL)"


def cache_folder() -> Path:
    """Where downloads and made texts and vectors are kept: $RECTUNE_CACHE, or ~/.cache/rectune."""
    return Path(os.environ.get("RECTUNE_CACHE", Path.home() / ".cache" / "rectune"))


def writable_folder() -> Path:
    """The cache folder for what is downloaded, or a temporary one, with a warning, where that cannot be written."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reason: Exception = OSError("no right to write there")
    except OSError as error:
        reason = error
    _pass_over(folder, reason)
    return _temporary()


@cache
def _temporary() -> Path:
    """A folder that goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="rectune-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def made_once(
    texts: Sequence[str],
    make: Callable[[list[str]], Iterable[tuple[str, bytes]]],
    *,
    name: str,
    maker: str,
) -> list[bytes]:
    """For each text what `make` makes of it; only texts that are not in the cache are handed to `make`.

    `name`: the cache file. `maker`: what identifies the maker and its settings. `make` yields pairs (text, made) in any
    order; each is kept as soon as it comes, a hundred at a time, so a killed run loses little.
    """
    keys = {text: hashlib.sha256(f"{maker}\0{text}".encode()).hexdigest() for text in texts}
    with closing(_opened(name)) as base:
        found = dict(_known(base, list(keys.values())))
        missing = [text for text, key in keys.items() if key not in found]
        pending: list[tuple[str, bytes]] = []
        try:
            for text, value in make(missing) if missing else ():
                found[keys[text]] = value
                pending.append((keys[text], value))
                if len(pending) == 100:
                    _keep(base, pending)
        finally:
            _keep(base, pending)
    return [found[keys[text]] for text in texts]


def _opened(name: str) -> sqlite3.Connection:
    """The cache file, or one in memory, with a warning, where the cache can be neither written nor read."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        base = sqlite3.connect(folder / f"{name}.sqlite", timeout=60)
        base.execute(TABLE)
        base.commit()
    except (OSError, sqlite3.Error) as error:
        _pass_over(folder, error)
        base = sqlite3.connect(":memory:")
        base.execute(TABLE)
    return base


def _pass_over(folder: Path, error: Exception) -> None:
    warnings.warn(
        f"the cache {folder} cannot be used ({getattr(error, 'strerror', None) or error}): what is made for this run is made again for the next. "
        "Name another folder with the variable RECTUNE_CACHE.",
        ToldOnce,
        stacklevel=4,
    )


def _known(base: sqlite3.Connection, keys: list[str], *, at_once: int = 500) -> Iterator[tuple[str, bytes]]:
    for begin in range(0, len(keys), at_once):
        part = keys[begin : begin + at_once]
        yield from base.execute(f"SELECT key, value FROM made WHERE key IN ({','.join('?' * len(part))})", part)


def _keep(base: sqlite3.Connection, pending: list[tuple[str, bytes]]) -> None:
    """Write what is pending in one short transaction: another run must not wait while a model computes."""
    try:
        base.executemany("INSERT OR REPLACE INTO made VALUES (?, ?)", pending)
        base.commit()
    except sqlite3.Error as error:  # read-only, or a full disk
        base.rollback()
        _pass_over(cache_folder(), error)
    pending.clear()
