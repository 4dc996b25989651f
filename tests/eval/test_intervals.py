"""Bootstrap intervals resample users."""

from __future__ import annotations

import numpy as np
import pytest
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
