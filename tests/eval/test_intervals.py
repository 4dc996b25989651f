"""Bootstrap intervals resample users."""

from __future__ import annotations

import numpy as np
import pytest
from rectune.eval import intervals
from rectune.eval.intervals import Bootstrap


def test_the_interval_of_a_mean_covers_what_theory_says(rng: np.random.Generator) -> None:
    values = rng.normal(1.0, 2.0, 900)
    mean, low, high = Bootstrap(np.arange(900), samples=2000).mean(values)
    half = 1.96 * values.std() / 30
    assert mean == pytest.approx(values.mean())
    assert (mean - low, high - mean) == (pytest.approx(half, rel=0.1), pytest.approx(half, rel=0.1))


def test_rows_of_one_user_stay_together(rng: np.random.Generator) -> None:
    per_user = rng.normal(0, 1, 50)
    users = np.repeat(np.arange(50), 20)
    _, low, high = Bootstrap(users).mean(per_user[users])
    _, single_low, single_high = Bootstrap(np.arange(1000)).mean(per_user[users])
    assert (high - low) > 3 * (single_high - single_low)


def test_statistics_and_means_agree(rng: np.random.Generator) -> None:
    values, users = rng.random(60), rng.integers(0, 20, 60)
    bootstrap = Bootstrap(users, samples=200, seed=3)
    by_mean = bootstrap.mean(values)
    assert by_mean == pytest.approx(bootstrap.statistic(lambda rows: float(values[rows].mean())))


def test_nan_rows_are_left_out() -> None:
    assert Bootstrap(np.arange(4)).mean(np.array([1.0, np.nan, 1.0, np.nan])) == (1.0, 1.0, 1.0)


def test_the_same_seed_gives_the_same_interval(rng: np.random.Generator) -> None:
    values = rng.random(30)
    assert Bootstrap(np.arange(30), seed=1).mean(values) == Bootstrap(np.arange(30), seed=1).mean(values)


def one_by_one(users: np.ndarray, values: np.ndarray, *, samples: int, seed: int) -> tuple[float, float, float]:
    """The mean and its interval as the definition has it: a draw of users at a time, a sum at a time."""
    who, position = np.unique(users, return_inverse=True)
    known = ~np.isnan(values)
    sums = np.bincount(position, weights=np.where(known, values, 0.0), minlength=len(who))
    counts = np.bincount(position, weights=known.astype(np.float64), minlength=len(who))
    draw, means = np.random.default_rng(seed), []
    for _ in range(samples):
        weights = np.bincount(draw.integers(0, len(who), len(who)), minlength=len(who)).astype(np.float64)
        means.append(sums @ weights / (counts @ weights) if counts @ weights else np.nan)
    means = np.array(means)[~np.isnan(means)]
    return float(sums.sum() / counts.sum()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


@pytest.mark.parametrize("chunk", [intervals.CHUNK, 700])  # all samples at a time, and one or a few
def test_weights_that_are_drawn_once_give_the_intervals_of_draws_one_by_one(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(intervals, "CHUNK", chunk)
    for count, rows in ((8, 8), (30, 100), (900, 2500)):
        users, values = rng.integers(0, count, rows), rng.normal(size=rows)
        values[rng.random(rows) < 0.1] = np.nan
        expected = one_by_one(users, values, samples=150, seed=7)
        found = Bootstrap(users, samples=150, seed=7).mean(values)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_statistic_reads_each_users_rows_as_often_as_the_user_is_drawn() -> None:
    users = np.array([7, 3, 7, 9, 3, 7])
    bootstrap = Bootstrap(users, samples=50, seed=2)
    draw, expected = np.random.default_rng(2), []
    for _ in range(50):
        times = np.bincount(draw.integers(0, 3, 3), minlength=3)
        expected.append([1, 4] * times[0] + [0, 2, 5] * times[1] + [3] * times[2])  # users in order: 3, 7, 9
    read: list[list[int]] = []
    bootstrap.statistic(lambda rows: float(read.append(rows.tolist()) or 0))
    assert read == [*expected, [0, 1, 2, 3, 4, 5]]


def test_weights_are_drawn_once_for_all_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: made.append(seed) or original(seed))
    bootstrap = Bootstrap(np.arange(40), samples=30, seed=5)
    for _ in range(3):
        bootstrap.mean(np.arange(40.0))
        bootstrap.statistic(lambda rows: float(rows.mean()))
    assert made == [5]


def test_weights_take_a_byte_a_draw_and_hold_what_can_be_drawn() -> None:
    assert Bootstrap(np.arange(3000), samples=10).weights.nbytes == 30_000
    weights = Bootstrap(np.arange(255), samples=400).weights
    assert (weights.sum(axis=1, dtype=np.int64) == 255).all()
    assert Bootstrap(np.zeros(9, dtype=np.int64), samples=4).weights.tolist() == [[1]] * 4


def test_a_sample_in_which_a_figure_is_not_defined_is_left_out() -> None:
    value, low, high = Bootstrap(np.arange(4), samples=100).statistic(lambda rows: 1.0 if 3 in rows else float("nan"))
    assert (value, low, high) == (1.0, 1.0, 1.0)
    everybody = [0, 1, 2, 3]
    value, low, high = Bootstrap(np.arange(4), samples=3).statistic(
        lambda rows: 1.0 if sorted(rows) == everybody else float("nan")  # none of these three samples draws everybody
    )
    assert value == 1.0
    assert np.isnan([low, high]).all()


def test_without_rows_nothing_is_defined() -> None:
    nobody = Bootstrap(np.zeros(0, dtype=np.int64), samples=3)
    assert np.isnan(nobody.mean(np.zeros(0))).all()
    assert np.isnan(nobody.statistic(lambda rows: float("nan") if not len(rows) else 0.0)).all()


def test_of_a_single_user_there_is_no_interval() -> None:
    bootstrap = Bootstrap(np.array([7, 7, 7]))
    mean, *interval = bootstrap.mean(np.array([0.0, 1.0, 0.5]))
    value, *other = bootstrap.statistic(lambda rows: float(len(rows)))
    assert (mean, value) == (0.5, 3.0)
    assert np.isnan([*interval, *other]).all()
