"""Given what somebody wants in words, and their history, name the item."""

from __future__ import annotations

from typing import Any

import numpy as np

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Part, Split
from rectune.tasks.next_item import next_item
from rectune.tasks.rows import TaskRows
from rectune.tasks.written import training_only, with_texts, written


def item_search(split: Split, index: ItemIndex, part: Part, *, writer: dict[str, Any]) -> TaskRows:
    """Given what somebody wants in words, and their history, name the item. Variables: `history`, `intention`, `target`.

    `writer`: `call` and the keys of a function as in `rectune.tasks.writers`; it sees the target's texts only. Without reviews
    (a log keeps none) an intention is written from item texts, one for each item. Rows whose item the writer can say
    nothing about are left out. Rows in `train` and `validation`; none in `test`, as it is no task to rank.
    """
    rows = training_only(next_item(split, index, part), part)
    wanted, which = np.unique(rows.target, return_inverse=True)
    texts = written(split, [[int(item)] for item in wanted], kind="intention", writer=writer)
    return with_texts(rows, [texts[at] for at in which], "intention", writer, split)
