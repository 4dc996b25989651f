"""Given the history, write the title of the next item."""

from __future__ import annotations

from dataclasses import replace

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Part, Split
from rectune.tasks.next_item import next_item
from rectune.tasks.rows import TaskRows


def next_title(split: Split, index: ItemIndex, part: Part) -> TaskRows:
    """Given the history, write the title of the next item. Variables: `history`, `target`."""
    return replace(next_item(split, index, part), kind="text")
