"""Ids that are numbers: in the order of training, or by lot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from rectune.indexing.item_index import ItemIndex
from rectune.indexing.random_numbers import random_numbers
from rectune.indexing.sequential import number_index, sequential
from rectune.log.cleaning import from_sequences
from rectune.log.split import Split
from rectune.log.splits.leave_one_out import leave_one_out


def split_of(sequences: Sequence[str], catalogue: str = "abcdefgh") -> Split:
    items = pl.DataFrame({"item_id": list(catalogue), "title": list(catalogue)})
    users = [f"u{n}" for n in range(len(sequences))]
    return leave_one_out(from_sequences(users, [list(s) for s in sequences], items, source="x"))


def number_of(index: ItemIndex, item: int) -> int:
    """The number that a name of decimal digits writes."""
    return int("".join(index.meanings[code] for code in index.codes[item]))


def test_items_are_numbered_as_training_meets_them() -> None:
    # trained: d, b of u0 (c, a held out); b, e of u1 (f, g held out)
    index = sequential(split_of(["dbca", "befg"]))
    assert [number_of(index, "abcdefgh".index(item)) for item in "dbe"] == [1001, 1002, 1003]
    assert sorted(number_of(index, "abcdefgh".index(item)) for item in "acfgh") == [1004, 1005, 1006, 1007, 1008]


def test_held_out_items_change_no_sequential_name() -> None:
    one = sequential(split_of(["dbca", "befg"]))
    other = sequential(split_of(["dbgh", "beac"]))
    assert np.array_equal(one.codes, other.codes)


def test_items_that_training_never_meets_come_in_an_order_that_the_seed_gives() -> None:
    catalogue = "abcdefghijklmnopqrstuvwxyz"
    unmet = slice(1, 26)  # training meets only a
    names = [sequential(split_of(["abc"], catalogue), seed=seed) for seed in (0, 0, 1)]
    numbers = [[number_of(index, i) for i in range(26)] for index in names]
    assert numbers[0] == numbers[1]
    assert numbers[0][0] == numbers[2][0] == 1001
    assert numbers[0][unmet] != numbers[2][unmet]
    assert numbers[0][unmet] != sorted(numbers[0][unmet])


def test_random_numbers_are_the_same_numbers_by_lot() -> None:
    split = split_of(["dbca", "befg"])
    names = [random_numbers(split, seed=seed) for seed in (0, 0, 1)]
    numbers = [[number_of(index, i) for i in range(8)] for index in names]
    assert sorted(numbers[0]) == sorted(numbers[2]) == list(range(1001, 1009))
    assert numbers[0] == numbers[1] != numbers[2]


def test_digits_are_written_highest_first_and_filled_with_zeros() -> None:
    index = number_index(np.array([1001, 12345]), base=10)
    assert [index.name(i) for i in range(2)] == ["<a_0><b_1><c_0><d_0><e_1>", "<a_1><b_2><c_3><d_4><e_5>"]


def test_base_100_writes_two_decimal_digits_a_token() -> None:
    index = number_index(np.array([1001, 1234]), base=100)
    assert [index.name(i) for i in range(2)] == ["<a_10><b_1>", "<a_12><b_34>"]
    assert index.meanings == ("10", "12", "1", "34")


def test_a_base_below_two_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`base` .* at least 2, got 1"):
        sequential(split_of(["dbca"]), base=1)
