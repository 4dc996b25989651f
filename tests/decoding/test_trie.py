"""The trie: what may come next, and what may not share a name."""

from __future__ import annotations

import pytest

from rectune.decoding.trie import build_trie


def test_names_lead_to_their_items() -> None:
    names = [[1, 2, 9], [1, 3, 9], [4, 9], [1, 2, 5, 9]]
    trie = build_trie(names, fixed_length=False)
    assert [int(trie.item[trie.walk(name)]) for name in names] == [0, 1, 2, 3]
    assert trie.walk([1, 4]) == -1
    assert set(trie.children[0]) == {1, 4}
    assert set(trie.children[trie.walk([1, 2])]) == {9, 5}
    assert trie.depth == 4


def test_dead_nodes_hide_items_and_empty_branches() -> None:
    trie = build_trie([[1, 2], [1, 3], [4, 2]], fixed_length=True)
    assert trie.dead_nodes([0]) == {trie.walk([1, 2])}
    assert trie.dead_nodes([0, 1]) == {trie.walk([1, 2]), trie.walk([1, 3]), trie.walk([1])}


@pytest.mark.parametrize("names", [[[1, 2], [1, 2]], [[1], [1, 2]], [[1, 2], [1]]])
def test_names_that_cannot_be_told_apart_are_refused(names: list[list[int]]) -> None:
    with pytest.raises(
        ValueError, match=r"items [01] and [01] tokenise to the same name, or one name begins the other"
    ):
        build_trie(names, fixed_length=False)


def test_names_without_an_end_token_must_have_one_length() -> None:
    with pytest.raises(ValueError, match="names are 1 to 2 tokens long"):
        build_trie([[1], [2, 3]], fixed_length=True)
