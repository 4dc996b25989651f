"""Given the history as titles, name the next item."""

from __future__ import annotations

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Part, Split
from rectune.tasks.next_item import next_item
from rectune.tasks.rows import TaskRows


def next_item_from_titles(split: Split, index: ItemIndex, part: Part) -> TaskRows:
    """Like `next_item`, for a template that prints the history as titles. Variables: `history`, `target`."""
    return next_item(split, index, part)
