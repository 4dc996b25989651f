"""One new token an item."""

from __future__ import annotations

import numpy as np

from rectune.indexing.item_index import ItemIndex, from_levels
from rectune.log.split import Split


def atomic(split: Split) -> ItemIndex:
    """Name each item by a token of its own; the token means the item's title."""
    return from_levels(
        np.arange(split.log.n_items, dtype=np.int32)[:, None], meanings=[split.log.items["title"].to_list()]
    )
