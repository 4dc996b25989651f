"""Items named by their titles."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Split

MAX_CHARACTERS = 200


def titles(split: Split, *, max_characters: int = MAX_CHARACTERS) -> ItemIndex:
    """Name each item by its title, cut to `max_characters`; a repeated title gets a number: 'Soap (2)'.

    Titles that differ only in case, width or white space count as repeated, because a tokenizer may fold them.
    """
    names, repeated = numbered(split.log.items["title"].to_list(), max_characters)
    health = {
        "items": len(names),
        "levels": [],
        "colliding_items_before_repair": repeated,
        "colliding_items_after_repair": 0,
    }
    return ItemIndex(np.zeros((len(names), 0), dtype=np.int32), titles=tuple(names), health=health)


def numbered(titles: Sequence[str], limit: int, taken: Sequence[str] = ()) -> tuple[list[str], int]:
    """Titles as names, each once and none of those that are `taken`, and how many needed a number."""
    known = {_folded(name) for name in taken}
    next_number: dict[str, int] = {}
    names = []
    repeated = 0
    for title in titles:
        name = _printable(title, limit)
        plain = _folded(name)
        number = next_number.get(plain, 1)
        if number > 1:
            name = f"{_printable(title, limit)} ({number})"
        while _folded(name) in known:
            number += 1
            name = f"{_printable(title, limit)} ({number})"
        repeated += number > 1
        next_number[plain] = number + 1
        known.add(_folded(name))
        names.append(name)
    return names, repeated


def _printable(title: str, limit: int) -> str:
    return " ".join(title.split())[:limit].strip() or "untitled"


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
