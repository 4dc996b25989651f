"""Given an item's name, write its title."""

from __future__ import annotations

from dataclasses import replace

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Part, Split
from rectune.tasks.item_to_index import item_to_index
from rectune.tasks.rows import TaskRows


def index_to_item(split: Split, index: ItemIndex, part: Part) -> TaskRows:
    """Given an item's name, write its title. Variables: `item`. Only for training: one row an item."""
    return replace(item_to_index(split, index, part), kind="text")
