"""The trie: what may come next, what may not share a name, and its arrays against plain dictionaries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rectune.decoding.trie import Trie, build_trie

NAMES = [[1, 2, 9], [1, 3, 9], [4, 9], [1, 2, 5, 9]]


def test_names_lead_to_their_items() -> None:
    trie = build_trie(NAMES, fixed_length=False)
    assert [int(trie.item_of(np.array(trie.walk(name)))) for name in NAMES] == [0, 1, 2, 3]
    assert trie.walk([1, 4]) == -1
    assert set(trie.children(0)) == {1, 4}
    assert set(trie.children(trie.walk([1, 2]))) == {9, 5}
    assert (trie.depth, trie.n_items, trie.fan_out) == (4, 4, [2, 2, 2, 1])


def test_nodes_are_numbered_breadth_first_with_siblings_in_one_row() -> None:
    trie = build_trie([[7, 1], [7, 2], [5, 3]], fixed_length=True)
    assert trie.levels.tolist() == [0, 1, 3, 6]
    assert trie.first.tolist() == [1, 3, 4, 6]  # the root's children 1..2, those of [5] 3, those of [7] 4..5
    assert trie.codes.tolist() == [0, 0, 1, 2, 0, 1]
    assert [t.tolist() for t in trie.tokens] == [[5, 7], [1, 2, 3]]
    assert trie.items.tolist() == [2, 0, 1]  # the item of each leaf
    assert trie.leaf_of(np.arange(3)).tolist() == [4, 5, 3]


def test_items_in_the_order_of_their_names_need_no_table() -> None:
    trie = build_trie(np.array([[1, 2], [1, 3], [2, 2]]), fixed_length=True)
    assert len(trie.items) == len(trie.leaves) == 0
    assert trie.item_of(np.array([[3, -1], [5, 4]])).tolist() == [[0, -1], [2, 1]]


def test_a_node_is_emptied_when_all_items_below_it_are() -> None:
    trie = build_trie([[1, 2], [1, 3], [4, 2]], fixed_length=True)
    one, two = trie.emptied([[0], [0, 1]])
    assert (one.tolist(), two.tolist()) == ([[-1], [trie.walk([1])]], [[trie.walk([1, 2]), -1], [trie.walk([1, 2]), trie.walk([1, 3])]])  # fmt: skip
    denied = trie.living(np.array([True, False, True]))
    assert trie.emptied([[0]], denied)[0].tolist() == [[trie.walk([1])]]  # item 1 is out of the shop, item 0 was seen


@pytest.mark.parametrize("names", [[[1, 2], [1, 2]], [[1], [1, 2]], [[1, 2], [1]]])
def test_names_that_cannot_be_told_apart_are_refused(names: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"items 0 and 1 tokenise to the same name, or one name begins the other"):
        build_trie(names, fixed_length=False)


def test_names_without_an_end_token_must_have_one_length() -> None:
    with pytest.raises(ValueError, match="names are 1 to 2 tokens long"):
        build_trie([[1], [2, 3]], fixed_length=True)


@pytest.mark.parametrize(("names", "error"), [([], "no items"), ([[], [1]], "item 0 has no tokens")])
def test_nothing_to_search_is_an_error(names: list[list[int]], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        build_trie(names, fixed_length=False)


def test_a_saved_trie_comes_back(tmp_path: Path) -> None:
    trie = build_trie(NAMES, fixed_length=False)
    trie.save(tmp_path / "trie.safetensors")
    again = Trie.load(tmp_path / "trie.safetensors")
    for name in ("codes", "first", "levels", "leaves", "items"):
        one, other = getattr(trie, name), getattr(again, name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    assert [t.tolist() for t in again.tokens] == [t.tolist() for t in trie.tokens]


@pytest.mark.parametrize(("codes", "size"), [(256, 1), (300, 2), (40_000, 4)])
def test_a_node_takes_its_code_and_an_inner_one_a_pointer(codes: int, size: int) -> None:
    names = np.stack([np.arange(codes), np.arange(codes) % 7 + codes], axis=1)
    trie = build_trie(names, fixed_length=True)
    assert trie.table_bytes == size * (1 + 2 * codes) + 4 * (1 + codes + 1)


@st.composite
def catalogues(draw: st.DrawFn) -> list[list[int]]:
    """Names that end with token 99: shared beginnings, chains, a level with one code, ragged lengths."""
    length = draw(st.integers(1, 5))
    codes = [draw(st.integers(1, 4)) for _ in range(length)]
    name = st.lists(st.integers(0, 3), min_size=1, max_size=length)
    drawn = draw(st.lists(name, min_size=1, max_size=30))
    distinct = {tuple(10 * i + c % codes[i] for i, c in enumerate(n)) for n in drawn}
    return [[*n, 99] for n in draw(st.permutations(sorted(distinct)))]


@given(catalogues(), st.randoms(use_true_random=False))
def test_arrays_and_dictionaries_agree(names: list[list[int]], random: object) -> None:
    trie = build_trie(names, fixed_length=False)
    for item, name in enumerate(names):
        node = 0
        for depth, token in enumerate(name):
            known = {n[depth] for n in names if n[:depth] == name[:depth]}
            assert set(trie.children(node)) == known
            child = trie.children(node)[token]
            assert trie.parent_of(np.array(child)) == node
            assert trie.level_of(np.array(child)) == depth + 1
            node = child
        assert trie.is_leaf(np.array(node))
        assert trie.leaf_of(np.array(item)) == node
        assert trie.item_of(np.array(node)) == item
    picked = [random.sample(range(len(names)), random.randint(0, len(names))) for _ in range(3)]  # type: ignore[attr-defined]
    prefixes = {tuple(n[:d]) for n in names for d in range(1, len(n) + 1)}
    for row, items in enumerate(picked):
        gone = {p for p in prefixes if all(i in items for i, n in enumerate(names) if tuple(n[: len(p)]) == p)}
        on_the_way = {tuple(names[i][:d]) for i in items for d in range(1, len(names[i]) + 1)}
        for levels, truth in ((trie.emptied(picked), gone), (trie.paths(picked), on_the_way)):
            found = [n for level in levels for n in level[row].tolist() if n >= 0]
            assert sorted(found) == sorted(trie.walk(p) for p in truth)
        alive = trie.living(np.isin(np.arange(len(names)), items))
        assert set(np.flatnonzero(alive[1:]) + 1) == {trie.walk(p) for p in on_the_way}
