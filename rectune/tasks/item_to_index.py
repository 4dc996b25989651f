"""Given an item's texts, name it."""

from __future__ import annotations

import numpy as np

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Part, Split
from rectune.tasks.rows import TaskRows
from rectune.tasks.views import ItemViews


def item_to_index(split: Split, index: ItemIndex, part: Part) -> TaskRows:
    """Given an item's texts, name it. Variables: `item`. Only for training: one row an item."""
    view = ItemViews(split, index)
    items = np.arange(split.log.n_items if part == "train" else 0)
    return TaskRows(items, lambda i: {"item": view(int(items[i]))}, "item", items)
