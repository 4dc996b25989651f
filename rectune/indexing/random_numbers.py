"""Item ids that are numbers drawn by lot (RID): what an id is worth that says nothing."""

from __future__ import annotations

import numpy as np

from rectune.indexing.item_index import ItemIndex
from rectune.indexing.sequential import FIRST_NUMBER, number_index
from rectune.log.split import Split


def random_numbers(split: Split, *, base: int = 10, seed: int = 0) -> ItemIndex:
    """Give the numbers from 1001 to the items by lot; one token a digit, for `base` see `number_index`.

    The same numbers in the same writing as `sequential`, so that only the order differs (Hua et al. 2023, How to Index
    Item IDs for Recommendation Foundation Models, random indexing).
    """
    return number_index(FIRST_NUMBER + np.random.default_rng(seed).permutation(split.log.n_items), base=base)
