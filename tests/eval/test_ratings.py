"""The judge of ratings: its figures by hand, and its sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from rectune.eval import ratings as judge
from rectune.eval.sentences import verdict
from rectune.eval.several import summarise

from rectune.indexing.atomic import atomic
from rectune.log.cleaning import make_log
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.tasks.rating import rating


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The data of a report on three test rows, given 5, 1 and 4, from chances that are known."""
    monkeypatch.setattr(judge, "page", lambda data, figures, kind: f"{kind} {sorted(figures)}")
    given = {"u": [3, 2, 4, 5], "v": [2, 2, 1, 1], "w": [4, 5, 3, 4]}
    rows = [(user, item, r) for user, rs in given.items() for item, r in zip("abcd", rs, strict=True)]
    log = make_log(pl.DataFrame(rows, schema=["user", "item", "rating"], orient="row"), source="x")
    split = leave_one_out(log)
    index = atomic(split)
    task = rating(split, index, "test", low=1, high=5)
    assert task.target.tolist() == [4, 0, 3]
    sure = np.array([[0, 0, 0, 0.5, 0.5], [0.6, 0.4, 0, 0, 0], [0, 0, 0.45, 0, 0.55]])  # expected 4.5, 1.4, 4.1
    even = np.full((3, 5), 0.2)
    evidence: Any = SimpleNamespace(
        split=split, index=index, task=task, answers={"untuned": even, "tuned": sure}, seed=0, audits=[], training=[], earlier=None,
        measured={}, environment={}, recipe=SimpleNamespace(name="stars", settings={}),
    )  # fmt: skip
    return judge.ratings(evidence, bootstrap_samples=20, examples=3)


def test_figures_of_the_model_by_hand(report: Any) -> None:
    table = report.data["results"]["table"]
    tuned, likeliest, untuned = (table[name] for name in (judge.TUNED, judge.LIKELIEST, judge.UNTUNED))
    # misses -.5, .4, .1; 4.5 lies between two answers and counts as the lower one, so 1.4 and 4.1 alone are right
    assert tuned["rmse"][0] == pytest.approx(np.sqrt((0.25 + 0.16 + 0.01) / 3))
    assert tuned["mae"][0] == pytest.approx(1 / 3)
    assert tuned["accuracy"] == pytest.approx(2 / 3)
    assert tuned["auc"] == 1.0
    # most likely: 4 (the first of two equal ones), 1, 5; misses -1, 0, 1
    assert likeliest["rmse"][0] == pytest.approx(np.sqrt(2 / 3))
    assert likeliest["accuracy"] == pytest.approx(1 / 3)
    # always 3: misses -2, 2, -1
    assert untuned["rmse"][0] == pytest.approx(np.sqrt(3))
    assert untuned["auc"] == 0.5


def test_the_difference_is_to_the_row_with_the_lowest_rmse(report: Any) -> None:
    results = report.data["results"]
    best = results["tuned_against"]["best_baseline"]
    lowest = min(results["table"][name]["rmse"][0] for name in list(results["table"])[:7])
    assert results["table"][best]["rmse"][0] == lowest
    value, low, high = results["tuned_against"]["differences"][best]
    assert value == pytest.approx(results["table"][judge.TUNED]["rmse"][0] - lowest)
    assert low <= value <= high


def test_examples_say_what_was_expected(report: Any) -> None:
    first = report.data["examples"][0]
    assert (first["given"], first["expected"], first["likeliest"]) == ("5", pytest.approx(4.5), "4")
    assert first["rated"] == ["a (3)", "b (2)", "c (4)"]
    assert report.page == "ratings ['Predictions by the rating given']"
    assert "3 test rows of 3 users, mean rating 3.33" in report.text


def test_seeds_of_ratings_are_summed_up_under_their_name(report: Any) -> None:
    summary = summarise([report.data, report.data], [{"seed": 0}, {"seed": 1}])
    (group,) = summary.data["grid"]
    assert group["seeds"] == [0, 1]
    assert group["results"]["ratings"][judge.TUNED]["mae"] == [pytest.approx(1 / 3), 0.0]


@pytest.mark.parametrize(
    ("triple", "lower", "words"),
    [
        ((-0.1, -0.2, -0.05), True, "better than"),
        ((0.1, 0.05, 0.2), True, "worse than"),
        ((0.1, -0.05, 0.2), True, "not shown to differ from"),
        ((-0.1, -0.2, -0.05), False, "worse than"),
        ((0.1, 0.05, 0.2), False, "better than"),
        ((0.1, 1e-17, 0.2), False, "not shown to differ from"),  # gains that cancel out, but for rounding
        ((-0.1, -0.2, -1e-17), False, "not shown to differ from"),
    ],
)
def test_a_lower_error_is_better_and_a_lower_gain_is_worse(triple: Any, lower: bool, words: str) -> None:
    against = {"best_baseline": "biases", "differences": {"biases": triple}, "metric": "rmse"}
    said = verdict({**against, "lower_is_better": True} if lower else against)
    assert said.startswith(f"The tuned model is {words} the best baseline (biases)")
