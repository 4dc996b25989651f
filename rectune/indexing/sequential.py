"""Item ids numbered in the order in which training meets them (SID)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rectune.indexing.item_index import ItemIndex, from_levels
from rectune.log.split import Split

FIRST_NUMBER = 1001  # the paper's: no item has a number of one digit, which the model knows from elsewhere


def sequential(split: Split, *, base: int = 10, seed: int = 0) -> ItemIndex:
    """Number items 1001, 1002, … as they first appear in the training events, user after user; one token a digit.

    Items that are bought together so share their leading digits (Hua et al. 2023, How to Index Item IDs for
    Recommendation Foundation Models, sequential indexing). Held-out events are not looked at: P5's ids leaked them.
    Items without a training event come last, shuffled. For `base` see `number_index`.
    """
    _, items = split.train_sequences()
    met, first = np.unique(items, return_index=True)
    unmet = np.setdiff1d(np.arange(split.log.n_items), met)
    order = np.concatenate([met[np.argsort(first)], np.random.default_rng(seed).permutation(unmet)])
    numbers = np.empty(split.log.n_items, dtype=np.int64)
    numbers[order] = FIRST_NUMBER + np.arange(len(order))
    return number_index(numbers, base=base)


def number_index(numbers: NDArray[np.int64], *, base: int) -> ItemIndex:
    """Name each item by its number: one level a digit, the highest first; `numbers`: (items,), distinct, not negative.

    `base` is how many values a digit has: 10 writes 1234 as 1, 2, 3, 4, and 100 as 12, 34, two decimal digits a token.
    All numbers get the length of the longest by leading zeros, so none begins another. A token means its digit.
    Raises ValueError for a `base` below 2.
    """
    if base < 2:
        raise ValueError(f"`base` is the number of values of a digit and must be at least 2, got {base}.")
    digits = []
    rest = numbers
    while rest.any():
        digits.append(rest % base)
        rest = rest // base
    levels = np.column_stack(digits[::-1]).astype(np.int32)
    words = [str(digit) for digit in range(int(levels.max()) + 1)]
    return from_levels(levels, meanings=[words] * len(digits))
