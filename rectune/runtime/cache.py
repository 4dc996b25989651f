"""What is kept between runs: downloads, and whatever a model once made of a text, under the hash of that text."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path


def cache_folder() -> Path:
    """Where downloads and made texts and vectors are kept: $RECTUNE_CACHE, or ~/.cache/rectune."""
    return Path(os.environ.get("RECTUNE_CACHE", Path.home() / ".cache" / "rectune"))


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
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    keys = {text: hashlib.sha256(f"{maker}\0{text}".encode()).hexdigest() for text in texts}
    with closing(sqlite3.connect(folder / f"{name}.sqlite", timeout=60)) as base:
        base.execute("CREATE TABLE IF NOT EXISTS made (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
        base.commit()
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


def _known(base: sqlite3.Connection, keys: list[str], *, at_once: int = 500) -> Iterator[tuple[str, bytes]]:
    for begin in range(0, len(keys), at_once):
        part = keys[begin : begin + at_once]
        yield from base.execute(f"SELECT key, value FROM made WHERE key IN ({','.join('?' * len(part))})", part)


def _keep(base: sqlite3.Connection, pending: list[tuple[str, bytes]]) -> None:
    """Write what is pending in one short transaction: another run must not wait while a model computes."""
    base.executemany("INSERT OR REPLACE INTO made VALUES (?, ?)", pending)
    base.commit()
    pending.clear()
