"""An index from a file."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np

from rectune.indexing.item_index import ItemIndex, from_levels, repair_with_digit
from rectune.log.split import Split
from rectune.runtime.near import shown
from rectune.runtime.text_files import read_json

_TOKEN = re.compile(r"<([a-z])_([0-9]{1,9})>")


def given(split: Split, *, path: Path, extra_items: bool = False) -> ItemIndex:
    """Read names from JSON (plain or gzipped): item id -> list of tokens such as '<a_12>', as LC-Rec writes them.

    The letter is the level. Items that share a name get one more level that tells them apart, with a warning.
    `extra_items`: the file may name items that the catalogue does not hold. Raises ValueError for such an item otherwise,
    for one of the catalogue that the file does not name, for names of different length, and for a token of another form.
    """
    names = read_json(path, unique=True)
    if not isinstance(names, dict):
        raise ValueError(f"{path.name}: an index file maps item ids to lists of tokens, got a {type(names).__name__}.")
    ids = split.log.items["item_id"].to_list()
    extra = sorted(set(names) - set(ids))
    if extra and not extra_items:
        raise ValueError(
            f"{path.name}: it names item `{extra[0]}`, which the catalogue does not hold ({len(extra)} such items). Is it the index "
            "of another data set? If the log left these items out, set `index.extra_items: true`."
        )
    rows = []
    for item_id in ids:
        if item_id not in names:
            raise ValueError(f"{path.name}: no name for item `{item_id}`. Is it the index of another data set?")
        rows.append(_levels(names[item_id], item_id, path))
    other = next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), None)
    if other is not None:
        raise ValueError(
            f"{path.name}: item `{ids[0]}` has {len(rows[0])} tokens and item `{ids[other]}` has {len(rows[other])}; all names must be "
            "equally long."
        )
    levels, colliding = repair_with_digit(np.array(rows, dtype=np.int32))
    if colliding.any():
        warnings.warn(
            f"{path.name}: {int(colliding.sum())} items share a name with another one, `{ids[int(colliding.argmax())]}` among them; "
            "one more level tells them apart.",
            stacklevel=2,
        )
    return from_levels(levels, colliding=colliding)


def _levels(tokens: object, item_id: str, path: Path) -> list[int]:
    if not isinstance(tokens, list) or not tokens:
        raise ValueError(f"{path.name}: the name of item `{item_id}` must be a list of tokens, got {shown(tokens)}.")
    codes = []
    for level, token in enumerate(tokens):
        match = _TOKEN.fullmatch(str(token))
        if match is None or ord(match[1]) - ord("a") != level:
            raise ValueError(
                f"{path.name}: item `{item_id}`: token {shown(token)} is not of the form '<{chr(97 + level)}_12>' (a number of at most nine digits)."
            )
        codes.append(int(match[2]))
    return codes
