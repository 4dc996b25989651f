"""Items named by their titles."""

from __future__ import annotations

import unicodedata

import numpy as np

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Split


def titles(split: Split, *, max_characters: int = 200) -> ItemIndex:
    """Name each item by its title, cut to `max_characters`; a repeated title gets a number: 'Soap (2)'.

    Titles that differ only in case, width or white space count as repeated, because a tokenizer may fold them.
    """
    taken: set[str] = set()
    next_number: dict[str, int] = {}
    names = []
    repeated = 0
    for title in split.log.items["title"].to_list():
        name = _printable(title, max_characters)
        plain = _folded(name)
        number = next_number.get(plain, 1)
        if number > 1:
            name = f"{_printable(title, max_characters)} ({number})"
        while _folded(name) in taken:
            number += 1
            name = f"{_printable(title, max_characters)} ({number})"
        repeated += number > 1
        next_number[plain] = number + 1
        taken.add(_folded(name))
        names.append(name)
    health = {
        "items": len(names),
        "levels": [],
        "colliding_items_before_repair": repeated,
        "colliding_items_after_repair": 0,
    }
    return ItemIndex(np.zeros((len(names), 0), dtype=np.int32), titles=tuple(names), health=health)


def _printable(title: str, limit: int) -> str:
    return " ".join(title.split())[:limit].strip() or "untitled"


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
