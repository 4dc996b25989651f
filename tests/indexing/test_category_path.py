"""Ids from category paths."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.decoding.trie import build_trie
from rectune.indexing.category_path import category_path
from rectune.indexing.hybrid import hybrid
from rectune.indexing.item_index import ItemIndex
from rectune.log.cleaning import make_log
from rectune.log.split import Split
from rectune.log.splits.leave_one_out import leave_one_out


def split_of(categories: Sequence[str]) -> Split:
    ids = [str(i) for i in range(len(categories))]
    items = pl.DataFrame({"item_id": ids, "title": [f"t{i}" for i in ids], "categories": categories})
    return leave_one_out(make_log(pl.DataFrame({"user": ["u"] * len(ids), "item": ids}), items, source="x"))


def words_of(index: ItemIndex, item: int) -> list[str]:
    """What the tokens of a name mean; '' for the number at the end."""
    return [index.meanings[code] for code in index.codes[item] if code >= 0]


def test_a_name_is_the_words_of_the_path_and_a_number() -> None:
    index = category_path(split_of(["Makeup,Nails", "Makeup, Eyes", "Hair", "Makeup,Nails"]))
    assert [words_of(index, i) for i in range(4)] == [
        ["Makeup", "Nails", ""], ["Makeup", "Eyes", ""], ["Hair", ""], ["Makeup", "Nails", ""],
    ]  # fmt: skip
    # level a: Hair 0, Makeup 1; level b: Eyes 0, Nails 1, then the leaf of Hair; level c: leaves alone
    assert [index.name(i) for i in (1, 2)] == ["<a_1><b_0><c_0>", "<a_0><b_2>"]
    assert {index.name(0), index.name(3)} == {"<a_1><b_1><c_0>", "<a_1><b_1><c_1>"}


def test_the_same_word_at_a_level_is_one_token_below_any_parent() -> None:
    index = category_path(split_of(["Makeup,Nails", "Tools,Nails", "Hair"]))
    assert index.tokens(0)[1] == index.tokens(1)[1]
    assert index.tokens(0)[0] != index.tokens(1)[0]


def test_no_name_begins_another_where_one_path_begins_another() -> None:
    index = category_path(split_of(["A", "A,B", "A,B,C", "A", "A,B", "D"]))
    assert [len(index.tokens(i)) for i in range(6)] == [2, 3, 4, 2, 3, 2]
    build_trie(index.codes.astype(np.int64), fixed_length=False)


def test_items_without_a_category_have_a_branch_of_their_own() -> None:
    index = category_path(split_of(["", " , ", "Hair"]))
    assert [words_of(index, i)[0] for i in range(3)] == ["none", "none", "Hair"]


def test_levels_can_be_skipped_from_the_root_and_cut_off_below() -> None:
    index = category_path(
        split_of(["Beauty > Hair > Dye > Red", "Beauty", "Beauty > Hair"]), separator=">", skip=1, max_depth=2
    )
    assert [words_of(index, i)[:-1] for i in range(3)] == [["Hair", "Dye"], ["none"], ["Hair"]]


def test_leaf_numbers_do_not_follow_the_order_of_the_catalogue() -> None:
    split = split_of(["A"] * 30)
    numbers = [[int(c) for c in category_path(split, seed=seed).codes[:, 1]] for seed in (0, 0, 1)]
    assert numbers[0] == numbers[1] != numbers[2]
    assert sorted(numbers[0]) == list(range(1, 31)) != numbers[0]


def test_a_hybrid_keeps_the_words_and_ends_in_the_title() -> None:
    base = {"call": "category_path"}
    index = hybrid(split_of(["A", "A,B", "A,B"]), base=base)
    assert [words_of(index, i) for i in range(3)] == [["A", "t0"], ["A", "B", "t1"], ["A", "B", "t2"]]
    build_trie(index.codes.astype(np.int64), fixed_length=False)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"column": "genre"}, "`column`: the items have no column `genre`. They have: item_id, title, categories"),
        ({"separator": ""}, "`separator` is empty"),
        ({"max_depth": 0}, "`max_depth` at least 1, got 0 and 0"),
        ({"skip": -1}, "`skip` must be at least 0 .* got -1 and 8"),
    ],
)
def test_wrong_category_keys_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        category_path(split_of(["A", "B", "C"]), **keys)


def test_beauty_has_six_branches_below_its_root(data: Any) -> None:
    from rectune.data_builders.lc_rec import lc_rec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = leave_one_out(lc_rec(path=data("letter") / "Beauty"))
    index = category_path(split, skip=1)
    assert index.health["levels"][0]["codes_used"] == 6  # as in the paper's code: level_0 of beauty
    assert len({index.name(i) for i in range(len(index))}) == split.log.n_items
