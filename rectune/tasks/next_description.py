"""Given the history, write the description of the next item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Part, Split
from rectune.tasks.next_title import next_title
from rectune.tasks.rows import TaskRows


def next_description(split: Split, index: ItemIndex, part: Part) -> TaskRows:
    """Given the history, write the description of the next item. Variables: `history`, `target`.

    Rows whose target has no description are left out. Raises ValueError where the items have no such column.
    """
    items = split.log.items
    if "description" not in items.columns:
        raise ValueError(
            f"{split.log.source}: `next_description` needs the item column `description`; the items have "
            f"{', '.join(items.columns)}. Leave the task out or add the column."
        )
    rows = next_title(split, index, part)
    kept = np.flatnonzero((items["description"] != "").to_numpy()[rows.target])
    return replace(rows.take(kept), notes={"rows_without_description": len(rows) - len(kept)})
