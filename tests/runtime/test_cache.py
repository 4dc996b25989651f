"""A cache that cannot be used is named with its variable and passed over."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from rectune.runtime.cache import cache_folder, made_once, writable_folder

NAMED = "cannot be used .*Name another folder with the variable RECTUNE_CACHE"


def make(texts: list[str]) -> Iterator[tuple[str, bytes]]:
    return ((text, text.upper().encode()) for text in texts)


def test_a_cache_in_the_place_of_a_file_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match=NAMED) as told:
        assert made_once(["x", "y"], make, name="n", maker="m") == [b"X", b"Y"]
    assert str(tmp_path / "file" / "cache") in str(told[0].message)


def test_a_file_that_is_no_data_base_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path))
    (tmp_path / "n.sqlite").write_bytes(b"no data base, and long enough to be read as one" * 40)
    with pytest.warns(UserWarning, match=NAMED):
        assert made_once(["x"], make, name="n", maker="m") == [b"X"]


def test_what_a_read_only_cache_holds_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path))
    made_once(["x"], make, name="n", maker="m")
    whole = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda file, **_: whole(f"file:{file}?mode=ro" if file != ":memory:" else file, uri=True)
    )
    asked: list[list[str]] = []

    def noted(texts: list[str]) -> Iterator[tuple[str, bytes]]:
        asked.append(texts)
        return make(texts)

    with pytest.warns(UserWarning, match=NAMED):
        assert made_once(["x", "y"], noted, name="n", maker="m") == [b"X", b"Y"]
    assert asked == [["y"]]


def test_downloads_go_elsewhere_where_the_cache_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path / "cache"))
    assert writable_folder() == cache_folder() == tmp_path / "cache"
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.warns(UserWarning, match=NAMED):
        other = writable_folder()
    assert other.is_dir()
    assert other != tmp_path / "cache"
    with pytest.warns(UserWarning, match=NAMED):
        assert writable_folder() == other
