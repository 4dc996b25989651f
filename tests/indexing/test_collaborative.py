"""Collaborative ids: clusters of the training co-occurrence graph, and hybrid ids on top of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array

from rectune.decoding.trie import build_trie
from rectune.indexing.collaborative import cluster_paths, co_occurrence, collaborative, spectral_parts, with_leaves
from rectune.indexing.hybrid import hybrid
from rectune.indexing.item_index import from_levels
from rectune.log.cleaning import from_sequences
from rectune.log.split import Split
from rectune.log.splits.leave_one_out import leave_one_out

# Two groups of four in which everything is bought together, and one user who joins d and e. Users of two events only
# train; the last one trains on `i` alone, and what is held out would tie the groups together.
CLIQUES = ["".join(pair) for group in ("abcd", "efgh") for pair in combinations(group, 2)] + ["de", "iae"]


def split_of(sequences: Sequence[str], catalogue: str) -> Split:
    items = pl.DataFrame({"item_id": list(catalogue), "title": [letter.upper() for letter in catalogue]})
    users = [f"u{n}" for n in range(len(sequences))]
    return leave_one_out(from_sequences(users, [list(s) for s in sequences], items, source="x"))


def graph_of(edges: Any, nodes: int) -> csr_array:
    a, b = np.array(list(edges)).T
    return csr_array((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=(nodes, nodes))


def groups_of(labels: Sequence[Any]) -> set[frozenset[int]]:
    """The parts as sets of positions, whatever their numbers."""
    return {frozenset(i for i, x in enumerate(labels) if x == label) for label in set(labels)}


def refuses_prefixes(codes: Any) -> None:
    """The trie raises where one name begins another or two are equal."""
    build_trie(codes.astype(np.int64), fixed_length=False)


def test_an_edge_counts_the_training_users_of_both_items() -> None:
    # u1 touches a twice and is one user; u2 trains on a and b, and its c and d are held out
    graph = co_occurrence(split_of(["ab", "aba" + "cd", "abcd", "bc"], "abcd")).toarray()
    assert graph.tolist() == [[0, 3, 0, 0], [3, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_two_cliques_joined_by_a_weak_edge_are_two_clusters() -> None:
    index = collaborative(split_of(CLIQUES, "abcdefghi"), clusters=2, leaf=4)
    first = [index.tokens(i)[0] for i in range(9)]
    assert groups_of(first[:8]) == {frozenset(range(4)), frozenset(range(4, 8))}
    assert first[8] == "<a_2>"  # nobody bought i with anything: a part of its own, after parts 0 and 1
    assert sorted(index.tokens(i)[1] for i in range(4)) == ["<b_0>", "<b_1>", "<b_2>", "<b_3>"]
    assert index.codes.shape == (9, 2)


def test_a_cluster_above_the_leaf_size_is_split_again() -> None:
    index = collaborative(split_of(CLIQUES, "abcdefghi"), clusters=2, leaf=3)
    assert [len(index.tokens(i)) for i in range(8)] == [3] * 8
    assert len(index.tokens(8)) == 2
    refuses_prefixes(index.codes)


def test_the_parts_are_those_of_scikit_learn() -> None:
    from sklearn.cluster import SpectralClustering

    rng = np.random.default_rng(5)
    group = np.arange(90) % 3
    weights = rng.poisson(np.where(group[:, None] == group, 2.0, 0.1)).astype(float)
    weights = np.triu(weights, 1) + np.triu(weights, 1).T
    theirs = SpectralClustering(3, affinity="precomputed", assign_labels="cluster_qr", random_state=0).fit(weights)
    ours = spectral_parts(csr_array(weights), parts=3, rng=np.random.default_rng(0))
    assert groups_of(ours.tolist()) == groups_of(theirs.labels_.tolist())
    assert groups_of(ours.tolist()) == groups_of(group.tolist())


def test_a_graph_too_large_for_the_dense_solver_is_split_as_planted() -> None:
    rng = np.random.default_rng(1)
    group = np.arange(1200) % 4
    pairs = rng.integers(0, 1200, (60_000, 2))
    inside = pairs[(group[pairs[:, 0]] == group[pairs[:, 1]]) & (pairs[:, 0] != pairs[:, 1])]
    graph = graph_of(np.concatenate([inside, pairs[pairs[:, 0] < pairs[:, 1]][:200]]), 1200)
    ours = spectral_parts(graph, parts=4, rng=np.random.default_rng(0))
    assert groups_of(ours.tolist()) == groups_of(group.tolist())


@pytest.mark.parametrize(
    ("graph", "clusters"),
    [
        (csr_array((40, 40)), 3),  # nothing is bought together
        (csr_array(np.ones((40, 40)) - np.eye(40)), 2),  # everything is
        (graph_of([(0, i) for i in range(1, 60)], 60), 2),  # one hub: parts peel off item by item
        (graph_of([(2 * i, 2 * i + 1) for i in range(600)], 1200), 3),  # 600 pieces
    ],
    ids=["empty", "complete", "star", "pairs"],
)
def test_any_graph_ends_in_names_of_which_none_begins_another(graph: Any, clusters: int) -> None:
    names = [
        with_leaves(cluster_paths(graph, clusters=clusters, leaf=1, rng=rng), rng=rng)
        for rng in (np.random.default_rng(0), np.random.default_rng(0))
    ]
    assert np.array_equal(*names)
    assert names[0].shape[1] <= 26
    refuses_prefixes(from_levels(names[0]).codes)


def test_held_out_events_change_no_collaborative_name() -> None:
    one = collaborative(split_of([*CLIQUES, "abce", "efah"], "abcdefghi"), clusters=2, leaf=2)
    other = collaborative(split_of([*CLIQUES[:-1], "igb", "abhg", "efcd"], "abcdefghi"), clusters=2, leaf=2)
    assert np.array_equal(one.codes, other.codes)


def test_leaf_numbers_follow_the_path_with_tokens_of_their_own() -> None:
    levels = with_leaves([(0,), (0,), (1, 2), (1, 2), (1, 0)], rng=np.random.default_rng(0))
    # above the path codes of their level: 0 and 2 on the second, so leaves from 3; none on the third, so from 0
    assert sorted(levels[:2].tolist()) == [[0, 3, -1], [0, 4, -1]]
    assert sorted(levels[2:4].tolist()) == [[1, 2, 0], [1, 2, 1]]
    assert levels[4].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"clusters": 1}, "`clusters` must be at least 2, got 1"),
        ({"clusters": 2, "leaf": 0}, "`leaf` is in items and must be at least 1, got 0"),
        ({"clusters": 20}, "the catalogue holds 9. Set `clusters` to at most 9"),
    ],
)
def test_wrong_collaborative_keys_are_refused(keys: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collaborative(split_of(CLIQUES, "abcdefghi"), **keys)


BASE = {"call": "collaborative", "clusters": 2, "leaf": 4}


def test_a_hybrid_name_is_the_base_name_with_a_last_token_of_its_own() -> None:
    split = split_of(CLIQUES, "abcdefghi")
    base = collaborative(split, clusters=2, leaf=4, seed=7)
    index = hybrid(split, base=BASE, seed=7)
    assert [index.tokens(i)[:-1] for i in range(9)] == [base.tokens(i)[:-1] for i in range(9)]
    assert [index.tokens(i)[-1] for i in range(9)] == [f"<b_{i}>" for i in range(9)]
    assert [index.meanings[index.codes[i, 1]] for i in range(9)] == list("ABCDEFGHI")


def test_a_hybrid_of_names_of_several_lengths_has_no_name_that_begins_another() -> None:
    index = hybrid(split_of(CLIQUES, "abcdefghi"), base={**BASE, "leaf": 3})
    assert len({index.tokens(i)[-1] for i in range(9)}) == 9
    assert {len(index.tokens(i)) for i in range(9)} == {2, 3}
    refuses_prefixes(index.codes)


@pytest.mark.parametrize(
    ("base", "error", "message"),
    [
        ({}, TypeError, "`index.base.call`: got None"),
        ({"call": "rectune.indexing.collaborative:colaborative"}, ValueError, "Did you mean `collaborative`"),
        ({"call": "rectune.indexing.collaborative"}, ValueError, "`index.base.call`: .* is not a function"),
        ({**BASE, "leaves": 3}, TypeError, "`index.base.leaves`: unknown key. Did you mean `leaf`"),
        ({"call": "titles"}, ValueError, "`index.base.call`: .* gives no names made of tokens"),
    ],
)
def test_a_wrong_base_is_refused(base: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hybrid(split_of(CLIQUES, "abcdefghi"), base=base)


def test_beauty_is_cut_as_scikit_learn_cuts_it(data: Any) -> None:
    from rectune.data_builders.lc_rec import lc_rec

    folder = data("letter") / "Beauty"
    with pytest.warns(UserWarning, match="repeat the title"):
        split = leave_one_out(lc_rec(path=folder))
    index = collaborative(split)
    first = index.health["levels"][0]
    assert first["codes_used"] == 21  # 20 clusters, and the 33 items that training never meets
    # SpectralClustering(20, cluster_qr) on the dense matrix: 80 s; equal coordinates may go either way
    assert first["items_per_code_max"] == pytest.approx(5042, abs=5)
    refuses_prefixes(index.codes)
