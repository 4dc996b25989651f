"""Rating baselines by hand, and what they may read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rectune.eval.metrics.rmse import rmse

from rectune.baselines.rating_factors import Penalty, RatingFactors, fit_factors, one_side
from rectune.baselines.rating_means import earlier_mean, global_mean, user_mean
from rectune.baselines.rating_rows import rating_rows
from rectune.log.cleaning import make_log
from rectune.log.split import Rows, Split
from rectune.log.splits.by_time import by_time
from rectune.log.splits.leave_one_out import leave_one_out


def tea_shop() -> Split:
    """u: a4 b2 c5 d1, v: a2 b3 c3; trained are u's a and b and v's a; tested u's d and v's c."""
    rows = [("u", "a", 4), ("u", "b", 2), ("u", "c", 5), ("u", "d", 1), ("v", "a", 2), ("v", "b", 3), ("v", "c", 3)]
    return leave_one_out(make_log(pl.DataFrame(rows, schema=["user", "item", "rating"], orient="row"), source="x"))


def test_means_by_hand() -> None:
    split = tea_shop()
    assert global_mean(split, split.test).tolist() == pytest.approx([8 / 3, 8 / 3])
    assert user_mean(split, split.test).tolist() == [3, 2]
    assert earlier_mean(split, split.test).tolist() == pytest.approx([11 / 3, 2.5])
    assert earlier_mean(split, split.train).tolist() == [4]  # u's b after a; v has one training event only


def test_a_user_without_training_events_has_the_global_mean() -> None:
    trained = [("u", "a", 5, 0.0), ("x", "b", 1, 0.5), ("u", "b", 3, 1.0)]
    later = [("w", "a", 1, 5.0), ("u", "a", 2, 6.0), ("w", "b", 2, 8.0), ("u", "c", 3, 9.0)]
    table = pl.DataFrame([*trained, *later], schema=["user", "item", "rating", "time"], orient="row")
    split = by_time(make_log(table, source="x"), validation=0.15, test=0.34, min_history=0)
    assert [split.log.users[int(user)] for user in split.test.user] == ["u", "u", "w"]
    assert user_mean(split, split.test).tolist() == [4, 4, 3]  # 3 is the mean of 5, 1 and 3
    assert earlier_mean(split, split.test).tolist() == pytest.approx([4, 10 / 3, 1])


def test_a_bias_is_the_mean_residual_shrunk_by_the_penalty() -> None:
    # (1.5 + 0.5) / (2 + 3): residuals above mean and the items' own biases, two ratings, penalty 3
    items = np.array([[0.5], [-0.5]])
    assert one_side(items, np.array([2.0, 0.0]), Penalty(3.0)).tolist() == pytest.approx([2 / 5])
    assert one_side(items[:0], np.zeros(0), Penalty(3.0)).tolist() == [0.0]


def test_predictions_add_up_by_hand() -> None:
    split = tea_shop()
    users = np.array([[0.5, 1.0, 2.0], [-0.5, 0.0, 1.0]])
    items = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.2, 1.0, 1.0], [0.3, -1.0, 1.0]])
    model = RatingFactors(3.0, users, items, Penalty(1.0, 1.0))
    # u, d: 3 + .5 + .3 + (-1 + 2) and v, c: 3 - .5 + .2 + (0 + 1)
    assert model.known(split, split.test).tolist() == pytest.approx([4.8, 3.7])


@pytest.mark.parametrize("factors", [0, 3])
def test_fitting_minimises_the_penalised_error(factors: int, rng: np.random.Generator) -> None:
    """At the minimum the gradient of every bias and factor is 0: -2 Σ residual x + 2 penalty w."""
    split = random_split(rng)
    penalty = Penalty(2.0, 3.0)
    model = fit_factors(split, factors=factors, penalty=penalty, seed=0)
    users, items = split.train_sequences()
    given = split.log.ratings[split.train_events].astype(float)
    interaction = (model.users[users, 1:] * model.items[items, 1:]).sum(1)
    residual = given - model.mean - model.users[users, 0] - model.items[items, 0] - interaction
    ones = np.ones((len(residual), 1))
    for side, codes, others, atol in (
        (model.items, items, model.users[users], 1e-9),  # the items were solved last: exact
        (model.users, users, model.items[items], 0.15),  # and the users before them: nearly
    ):
        x = np.hstack([ones, others[:, 1:]]) * residual[:, None]
        pull = np.column_stack([np.bincount(codes, weights=column, minlength=len(side)) for column in x.T])
        np.testing.assert_allclose(pull, side * penalty.of(1 + factors), atol=atol)


def test_factors_find_a_taste_that_biases_cannot(rng: np.random.Generator) -> None:
    """Two camps, each rating its own items 5 and the others' 1: biases know nothing of it, factors do."""
    rows = [(f"u{u}", f"i{i}", 5 if u % 2 == i % 2 else 1) for u in range(30) for i in rng.permutation(20)[:12]]
    split = leave_one_out(make_log(pl.DataFrame(rows, schema=["user", "item", "rating"], orient="row"), source="x"))
    given = split.log.ratings[split.test.target].astype(float)
    errors = [
        rmse(fit_factors(split, factors=f, penalty=Penalty(2.0, 0.5), seed=0).known(split, split.test), given)
        for f in (0, 2)
    ]
    assert errors[0] > 1.8
    assert errors[1] < 0.6


def random_split(rng: np.random.Generator) -> Split:
    """40 users and 15 items, ratings from 1 to 5, cut in time."""
    rows = [
        (f"u{u}", f"i{i}", int(rng.integers(1, 6)), float(rng.random()))
        for u in range(40)
        for i in rng.permutation(15)[:9]
    ]
    log = make_log(pl.DataFrame(rows, schema=["user", "item", "rating", "time"], orient="row"), source="x", warn_unordered=False)  # fmt: skip
    return by_time(log, validation=0.2, test=0.2)


def with_ratings(split: Split, ratings: Any) -> Split:
    log = dataclasses.replace(split.log, ratings=ratings.astype(np.float32))
    return Split(log, split.train, split.validation, split.test, split.train_events)  # fmt: skip


def test_changing_test_ratings_changes_no_row_of_training_events(rng: np.random.Generator) -> None:
    split = random_split(rng)
    ratings = split.log.ratings.copy()
    ratings[split.test.target] = 6 - ratings[split.test.target]
    rows = zip(rating_rows(split, seed=0), rating_rows(with_ratings(split, ratings), seed=0), strict=True)
    same = {one.name: np.array_equal(one.predicted, other.predicted) for one, other in rows}
    assert same == {
        "global mean": True, "user mean": True, "biases": True, "matrix factorisation": True,
        "mean of earlier ratings": False, "biases, earlier ratings": False, "matrix factorisation, earlier ratings": False,
    }  # fmt: skip


def test_no_row_reads_its_targets_rating_or_a_later_one(rng: np.random.Generator) -> None:
    split = random_split(rng)
    i = int(np.flatnonzero(np.diff(split.test.user) == 0)[0])  # the user has a later test row
    ratings = split.log.ratings.copy()
    later = np.arange(split.test.target[i], len(ratings))
    later = later[split.log.user_codes[later] == split.test.user[i]]
    assert len(later) >= 2
    ratings[later] = 6 - ratings[later]
    for one, other in zip(rating_rows(split, seed=0), rating_rows(with_ratings(split, ratings), seed=0), strict=True):
        assert one.predicted[i] == other.predicted[i], one.name


def test_weights_are_chosen_on_validation_and_stated(rng: np.random.Generator) -> None:
    rows = {row.name: row for row in rating_rows(random_split(rng), seed=0)}
    assert set(rows["biases"].settings) == {"bias_penalty", "validation_rmse"}
    assert set(rows["matrix factorisation"].settings) == {
        "bias_penalty",
        "factors",
        "factor_penalty",
        "validation_rmse",
    }


def test_without_validation_rows_the_first_weights_are_taken(rng: np.random.Generator) -> None:
    split = random_split(rng)
    none = split.validation.take(np.zeros(0, dtype=np.int64))
    rows = rating_rows(Split(split.log, split.train, none, split.test, split.train_events), seed=0)
    assert rows[2].settings["bias_penalty"] == 5.0
    assert (rows[3].settings["factors"], rows[3].settings["factor_penalty"]) == (8, 10.0)


@pytest.mark.heavy
def test_factors_beat_biases_beat_means_on_movielens(data: Any) -> None:
    """On the random split u1 of MovieLens 100K: biases about .96, regularised factors about .93 to .95 RMSE, as is known."""
    from rectune.data_builders.files import find_file, read_rows

    folder: Path = data("ml-100k")
    columns = ["user", "item", "rating", "time"]
    parts = [read_rows(find_file(folder, f"u1.{name}"), separator="\t", columns=columns) for name in ("base", "test")]
    log = make_log(pl.concat(parts), source="MovieLens 100K, u1", warn_unordered=False)
    held = {(user, item) for user, item in zip(parts[1]["user"], parts[1]["item"], strict=True)}
    ids, users = log.items["item_id"].to_list(), log.users.to_list()
    pairs = zip(log.user_codes, log.item_codes, strict=True)
    out = np.array([(users[u], ids[i]) in held for u, i in pairs])
    whole, tested = leave_one_out(log), np.flatnonzero(out)
    split = Split(log, whole.train, whole.validation, whole.test, np.flatnonzero(~out))
    test = Rows(tested, log.user_codes[tested].astype(np.int64), tested, tested, tested, tested)
    given = log.ratings[test.target].astype(float)
    found = [
        rmse(fit_factors(split, factors=f, penalty=p, seed=0).known(split, test).clip(1, 5), given)
        for f, p in ((0, Penalty(5.0)), (8, Penalty(5.0, 10.0)))
    ]
    assert found[0] == pytest.approx(0.96, abs=0.01)
    assert found[1] < found[0] - 0.01
