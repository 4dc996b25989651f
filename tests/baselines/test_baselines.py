"""Baselines by hand, and against published figures on real logs."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
from rectune.eval.metrics.auc import auc

from rectune.baselines.ease import ease, ease_weights, ease_with_markov
from rectune.baselines.item_knn import item_knn
from rectune.baselines.likes import both, item_like_rate, logistic, share_of_likes
from rectune.baselines.markov import markov
from rectune.baselines.popularity import popularity
from rectune.baselines.repeat_last import repeat_last
from rectune.baselines.scoring import (
    NOWHERE,
    Placed,
    Scorer,
    choose,
    choose_mix,
    history_matrix,
    list_rows,
    top_columns,
)
from rectune.log.cleaning import make_log
from rectune.log.split import Split
from rectune.log.splits.given import given
from rectune.log.splits.leave_one_out import leave_one_out


def figures(lists: Placed) -> list[float]:
    """R@5, R@10, N@5, N@10."""
    gain = 1 / np.log2(lists.place + 2.0)
    hit = [lists.place < k for k in (5, 10)]
    return [float(h.mean()) for h in hit] + [float(np.where(h, gain, 0).mean()) for h in hit]


def test_popularity_and_ties_by_hand(tiny_log: Any) -> None:
    # training events: a b | b | a c d -> a 2, b 2, c 1, d 1, e 0
    split = leave_one_out(tiny_log)
    hidden, shown = list_rows(split, split.test, popularity(split).score, width=5)
    # u0 (a b c seen) target d: c and d tie at 1, a and b above -> place 3; hidden: only e (0) besides d -> 0
    # u1 (b c seen) target e: everything above -> 4; hidden: a and d above -> 2; u2 (a b c d seen) target e: 4, hidden 0
    assert shown.place.tolist() == [3, 4, 4]
    assert hidden.place.tolist() == [0, 2, 0]
    assert hidden.items[0].tolist() == [3, 4, -1, -1, -1]


def test_of_items_with_equal_scores_the_first_are_listed_on_every_cpu() -> None:
    scores = np.array([[0.0, 2.0, 1.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0, 3.0], [-np.inf, 5.0, -np.inf, -np.inf, 4.0]])

    assert top_columns(scores, 2).tolist() == [[1, 2], [0, 1], [1, 4]]
    assert top_columns(scores, 3).tolist() == [[1, 2, 3], [0, 1, 2], [0, 1, 4]]
    assert top_columns(scores, 5).tolist() == [list(range(5))] * 3

    assert top_columns(scores, 0).shape == (3, 0)
    with pytest.raises(ValueError, match="gave NaN"):
        top_columns(np.array([[1.0, np.nan, 2.0, 0.0]]), 2)

    draw = np.random.default_rng(0)
    many = draw.integers(0, 4, (50, 300)).astype(float)
    expected = np.sort(np.argsort(-many, axis=1, kind="stable")[:, :20], axis=1)
    assert (top_columns(many, 20) == expected).all()


def test_scores_within_a_millionth_of_the_targets_are_equal_to_it() -> None:
    log = make_log(pl.DataFrame({"user": ["u"] * 4 + ["v"] * 3, "item": list("abcdbca")}), source="x")
    split = leave_one_out(log)
    u = split.test.take(np.array([0]))  # the target is d
    for target, others, place in (
        (1.0, [1.0, 1.0, 1.0], 3),
        (1.0, [1 - 9e-7, 1 - 1e-12, 1 - 1.1e-6], 2),
        (-200.0, [-200 * (1 + 9e-7), -200 * (1 + 1.1e-6), -201.0], 1),
        (0.0, [0.0, -1e-9, -1.0], 1),  # of nothing a millionth is nothing
    ):
        scores = np.array([[*others, target]])
        shown = list_rows(split, u, lambda rows, scores=scores: scores, width=3)[1]
        assert shown.place.tolist() == [place], (target, others)


def test_a_hidden_target_cannot_be_hit() -> None:
    log = make_log(pl.DataFrame({"user": ["u"] * 4, "item": list("abca")}), source="x")
    split = leave_one_out(log)
    hidden, shown = list_rows(split, split.test, popularity(split).score, width=3)
    assert hidden.place.tolist() == [NOWHERE]
    assert shown.place[0] < 3


def test_repeat_last_by_hand(tiny_log: Any) -> None:
    split = leave_one_out(tiny_log)
    scores = repeat_last(split).score(split.test)
    assert scores[0].tolist() == [0.25, 0.5, 1.0, 0.0, 0.0]


def test_repeat_last_keeps_its_order_however_long_ago_and_lists_the_rest_as_in_the_catalogue() -> None:
    events = ["a", "b", *["c"] * 3000, "d"]
    frame = pl.DataFrame({"user": ["u"] * len(events) + ["v"] * 3, "item": [*events, "e", "f", "a"]})
    split = leave_one_out(make_log(frame, source="x"))
    shown = list_rows(split, split.test.take(np.array([0])), repeat_last(split).score, width=6)[1]
    names = split.log.items["item_id"].to_list()
    assert [names[i] for i in shown.items[0]] == ["c", "b", "a", "d", "e", "f"]
    assert shown.place.tolist() == [5]  # d, e and f are equal, and d, the target, counts as the last of them


def test_markov_by_hand(tiny_log: Any) -> None:
    # transitions in training: a->b (u0), a->c and c->d (u2); popularity a 2, b 2, c 1, d 1, e 0
    split = leave_one_out(tiny_log)
    scores = markov(split).score(split.test)
    # after c came d, once in one; of half an event each item gets its popularity as a share of the largest
    assert scores[0].tolist() == [0.5, 0.5, 0.25, 1 + 0.25, 0.0]
    assert scores[1, 0] == 0.5


def test_the_recency_weight_counts_from_the_latest(tiny_log: Any) -> None:
    split = leave_one_out(tiny_log)
    matrix = np.asarray(history_matrix(split, split.test, 0.7).todense())
    np.testing.assert_allclose(matrix[0], [0.49, 0.7, 1.0, 0.0, 0.0])


def test_ease_weights_solve_the_constrained_least_squares() -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((30, 5)) < 0.4).astype(float)
    weights = ease_weights(x.T @ x, 2.0)
    assert np.diag(weights).tolist() == [0.0] * 5
    for j in range(5):  # ridge regression of column j on the others
        others = [i for i in range(5) if i != j]
        a = x[:, others]
        expected = np.linalg.solve(a.T @ a + 2.0 * np.eye(4), a.T @ x[:, j])
        np.testing.assert_allclose(weights[others, j], expected)


def test_ease_says_when_it_runs_on_the_top_items(small_shop: Any) -> None:
    split = leave_one_out(small_shop)
    row = ease(split, most_items=50)
    assert (row.settings["items"], row.settings["of"]) == (50, 120)
    assert (row.score(split.test) != 0).any(axis=0).sum() <= 50


def test_weights_are_chosen_on_validation_and_stated(small_shop: Any) -> None:
    split = leave_one_out(small_shop)
    row = ease(split)
    mixed = ease_with_markov(split, row)
    assert mixed.settings["validation_ndcg@10"] >= row.settings["validation_ndcg@10"]
    assert set(item_knn(split).settings) == {"shrink", "neighbours", "decay", "items", "of", "validation_ndcg@10"}


def test_a_mix_is_chosen_as_if_each_sum_were_a_candidate(small_shop: Any) -> None:
    split = leave_one_out(small_shop)
    scores = (markov(split).score, popularity(split).score)
    weights = [(1.0, 0.0), (0.0, 1.0), (1.0, 0.002), (1.0, 0.0)]

    def candidate(some: tuple[float, ...]) -> Scorer:
        return lambda rows: some[0] * scores[0](rows) + some[1] * scores[1](rows)

    one_by_one = choose(split, "mix", (({"weights": some}, candidate(some)) for some in weights))
    chosen, found = choose_mix(split, lambda rows: [score(rows) for score in scores], weights)
    assert {"weights": chosen, **found} == one_by_one.settings
    place = list_rows(split, split.validation, candidate(chosen), width=1)[0].place
    gain = np.where(place < 10, 1 / np.log2(place + 2.0), 0.0).mean()
    assert found == {"validation_ndcg@10": pytest.approx(gain, abs=1e-6)}
    nobody = dataclasses.replace(split, validation=split.validation.take(np.zeros(0, dtype=np.int64)))
    assert choose_mix(nobody, lambda rows: [], weights) == (weights[0], {})


def test_scores_that_are_no_numbers_are_refused_where_weights_are_chosen(small_shop: Any) -> None:
    split = leave_one_out(small_shop)
    with pytest.raises(ValueError, match="gave NaN"):
        choose_mix(split, lambda rows: [np.full((len(rows), split.log.n_items), np.nan)], [(1.0,)])


def test_baselines_never_look_at_held_out_events(small_shop: Any) -> None:
    split = leave_one_out(small_shop)
    test_items = small_shop.item_codes.copy()
    test_items[split.test.target] = (test_items[split.test.target] + 7) % small_shop.n_items
    other_log = dataclasses.replace(small_shop, item_codes=test_items)
    other = Split(other_log, split.train, split.validation, split.test, split.train_events)
    for make in (popularity, markov, item_knn, ease):
        assert np.array_equal(make(split).score(split.test), make(other).score(split.test)), make


def test_rules_about_likes_by_hand() -> None:
    rows = [("u", "a", 1.0), ("u", "b", 0.0), ("u", "a", 1.0), ("u", "b", 1.0), ("u", "c", 0.0)]
    log = make_log(pl.DataFrame(rows, schema=["user", "item", "rating"], orient="row"), source="x")
    split = leave_one_out(log)
    likes = log.ratings > 0.5
    assert share_of_likes(split, split.test, likes).tolist() == [(3 + 1) / (4 + 2)]
    # training targets: b (0) and a (1); overall rate 1/2; the test target c was never a training target
    assert item_like_rate(split, split.test, likes).tolist() == [0.5]
    # without their own answer: b is left with (0 - 0 + 1) / (1 - 1 + 2), a with (1 - 1 + 1) / 2
    assert item_like_rate(split, split.train, likes, leave_out=True).tolist() == [0.5, 0.5]
    assert both(np.array([0.8]), np.array([0.5]))[0] == pytest.approx(1 / (1 + np.exp(-np.log(4) / 2)))


def test_logistic_regression_learns_from_training_rows_which_of_the_two_tells() -> None:
    # item `good` is liked by everyone and `bad` by nobody, whatever share of likes their history holds
    rows = [
        (f"u{n}", item, rating)
        for n in range(60)
        for item, rating in [("x", float(n % 2)), ("y", float(n % 3 == 0)), (("good", "bad")[n % 2], float(n % 2 == 0)), ("z", 1.0), (("good", "bad")[n // 2 % 2], float(n // 2 % 2 == 0))]
    ]  # fmt: skip
    log = make_log(pl.DataFrame(rows, schema=["user", "item", "rating"], orient="row"), source="x")
    split = leave_one_out(log)
    likes = log.ratings > 0.5
    liked = likes[split.test.target].astype(np.int64)
    assert auc(logistic(split, split.test, likes), liked) > 0.95
    assert auc(share_of_likes(split, split.test, likes), liked) < 0.7
    alike = np.ones(len(likes), dtype=bool)
    assert logistic(split, split.test, alike).tolist() == [1.0] * 60


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "hidden", "shown", "chain"),
    [
        pytest.param(
            "letter/Instruments",
            [0.1112, 0.1326, 0.0956, 0.1025],
            [0.1033, 0.1248, 0.0845, 0.0914],
            [0.0814, 0.0637],
            id="Instruments",
            marks=pytest.mark.benchmark,  # weights between 9,922 items
        ),
        pytest.param(
            "amazon18_scientific",
            [0.0893, 0.1117, 0.0702, 0.0773],
            [0.0744, 0.1003, 0.0540, 0.0625],
            [0.0897, 0.0681],
            id="Scientific",
        ),
    ],
)
def test_ease_and_markov_reproduce_the_figures_of_real_logs(
    data: Any, name: str, hidden: list[float], shown: list[float], chain: list[float]
) -> None:
    from rectune.data_builders.lc_rec import lc_rec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = leave_one_out(lc_rec(path=data(name)))
    two_users = 2 / len(split.test) + 5e-5  # and the rounding of the published figure
    row = ease(split, penalties=(100.0,), decays=(0.7,))
    for lists, expected in zip(list_rows(split, split.test, row.score, width=10), (hidden, shown), strict=True):
        np.testing.assert_allclose(figures(lists), expected, atol=two_users)
    found = figures(list_rows(split, split.test, markov(split).score, width=10)[0])
    np.testing.assert_allclose([found[1], found[3]], chain, atol=two_users)


def test_the_share_of_likes_reproduces_its_auc_on_tallrec(data: Any) -> None:
    from rectune.data_builders.tallrec import tallrec

    split = given(tallrec(path=data("tallrec/movie")))
    likes = split.log.ratings > 0.5
    assert (len(split.train), len(split.validation), len(split.test)) == (8000, 1000, 1000)
    found = auc(share_of_likes(split, split.test, likes), likes[split.test.target].astype(np.int64))
    assert round(found, 4) == 0.7260
