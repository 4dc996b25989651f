"""Files that name items: LC-Rec's index files, and OneRec's tables of semantic ids."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl

from rectune.indexing.item_index import SID_BEGIN, SID_END
from rectune.runtime.near import shown
from rectune.runtime.text_files import read_json

_TOKEN = re.compile(r"<(s_)?([a-z])_([0-9]{1,9})>")
_PACKED = 8192  # codes a level in OneRec's packed numbers
_PACKED_LEVELS = 3


def read_names(path: Path) -> dict[str, Any]:
    """Item id -> its name as the file has it, from one of three forms.

    JSON (plain or gzipped) of item id -> name (LC-Rec). OneRec's `sid2pid.json` and `sid2iid.json`: a packed name, (a * 8192 + b) * 8192 + c, or its
    codes with points between, -> the items that share it, each with a `pid` or `iid`. OneRec's `pid2sid.parquet`: `pid` and `sid`, a list of codes.
    Raises ValueError for another form.
    """
    if path.suffix == ".parquet":
        table = pl.read_parquet(path)
        if not {"pid", "sid"} <= set(table.columns):
            raise ValueError(
                f"{path.name}: a table of names has the columns pid and sid, got {', '.join(table.columns)}."
            )
        return {str(pid): sid for pid, sid in zip(table["pid"].to_list(), table["sid"].to_list(), strict=True)}
    names = read_json(path, unique=True)
    if not isinstance(names, dict):
        raise ValueError(f"{path.name}: an index file maps item ids to lists of tokens, got a {type(names).__name__}.")
    first = next(iter(names.values()), None)
    if isinstance(first, list) and first and isinstance(first[0], dict):
        return _turned(names, path)
    return names


def _turned(shared: dict[str, Any], path: Path) -> dict[str, Any]:
    """Name -> items, the other way round."""
    names: dict[str, Any] = {}
    for name, items in shared.items():
        codes = _unpacked(name)
        listed = items if isinstance(items, list) else [None]
        ids = [item.get("pid", item.get("iid")) if isinstance(item, dict) else None for item in listed]
        if codes is None or None in ids:
            raise ValueError(
                f"{path.name}: `{name[:80]}` is not of OneRec's form: a packed name, and a list of items with a `pid` or `iid` each."
            )
        for item_id in map(str, ids):
            if item_id in names:
                raise ValueError(f"{path.name}: item `{item_id}` is there twice.")
            names[item_id] = codes
    return names


def _unpacked(name: str) -> list[int] | None:
    parts = name.split(".")
    if not all(part.isascii() and part.isdigit() for part in parts):
        return None
    if len(parts) > 1:
        return [int(part) for part in parts]
    number = int(name) if len(name) < 19 else _PACKED**_PACKED_LEVELS
    if number >= _PACKED**_PACKED_LEVELS:
        return None
    return [number // _PACKED**level % _PACKED for level in reversed(range(_PACKED_LEVELS))]


def codes_of(name: object, item_id: str, path: Path) -> tuple[list[int], str]:
    """The codes of one item's name, and what stands before the letters of its tokens: '' or 's_'.

    A name is a list of tokens, '<a_12>' or OneRec's '<s_a_12>', the same as one text, or a list of numbers, which are OneRec's. Begin and end of a name are
    no part of it. Raises ValueError for anything else.
    """
    if isinstance(name, str) and _TOKEN.search(name):
        name = re.findall(r"<[^<>]*>|[^<>]+", name)
    if not isinstance(name, list) or not name:
        raise ValueError(f"{path.name}: the name of item `{item_id}` must be a list of tokens, got {shown(name)}.")
    if all(isinstance(code, int) and not isinstance(code, bool) and 0 <= code < 10**9 for code in name):
        return name, "s_"
    tokens = name[1:-1] if [name[0], name[-1]] == [SID_BEGIN, SID_END] else name
    first = _TOKEN.fullmatch(str(tokens[0])) if tokens else None
    prefix = (first[1] or "") if first else ""
    codes = []
    for level, token in enumerate(tokens or name):
        match = _TOKEN.fullmatch(str(token))
        if match is None or (match[1] or "") != prefix or ord(match[2]) - ord("a") != level:
            raise ValueError(
                f"{path.name}: item `{item_id}`: token {shown(token)} is not of the form '<{prefix}{chr(97 + level)}_12>' (a number of at most nine digits)."
            )
        codes.append(int(match[3]))
    return codes, prefix
