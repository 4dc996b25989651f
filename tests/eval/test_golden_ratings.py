"""The report of a rating run, each figure worked out by hand from the answers of `golden_likes`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rectune.eval.ratings import ratings

from rectune.baselines.rating_rows import rating_rows
from rectune.run.judged import Report
from tests.eval import golden_likes
from tests.eval.golden_likes import GIVEN
from tests.eval.tables import Page, console_table, shown, shown_interval

PREDICTED = {
    "global mean": [3.5] * 8,  # 28 / 8
    "user mean": [5, 5, 1.5, 1.5, 3, 3, 4.5, 4.5],
    "mean of earlier ratings": [5, 14 / 3, 1.5, 2, 3, 11 / 3, 4.5, 13 / 3],
    "untuned model": [3] * 8,
    "tuned model": [3.5, 2.5, 3, 4, 4, 2.5, 3.5, 4],  # .6 r + .1 (15 - r)
    "tuned model, most likely rating": [4, 2, 3, 5, 5, 2, 4, 5],
}  # fmt: skip
# Sums over the 8 rows of squared and of absolute misses; right answers (of two equally near ones the lower counts); pairs of
# a rating above 3 and one that is not, in the right order
TABLE = {
    "global mean": [16, 10, 1, 7.5],  # misses -.5 2.5 .5 -1.5 -1.5 1.5 -.5 -1.5; 3.5 counts as 3
    "user mean": [37, 14, 1, 8.5],  # 1 4 -1.5 -3.5 -2 1 .5 -.5; pairs 2.5 + .5 + 1.5 + 2 + 2
    "mean of earlier ratings": [33.166667, 14, 1, 9],  # 1 3.66667 -1.5 -3 -2 1.66667 .5 -.66667; 3 + 1 + 1 + 2 + 2
    "untuned model": [19, 11, 1, 7.5],  # -1 2 0 -2 -2 1 -1 -2
    "tuned model": [6, 6, 2, 15],  # -.5 1.5 0 -1 -1 .5 -.5 -1; 3 for a 3, and 2.5, so 2, for a 2
    "tuned model, most likely rating": [1, 1, 7, 15],  # 2 for a 1
}
FITTED = [
    "biases",
    "matrix factorisation",
    "biases, earlier ratings",
    "matrix factorisation, earlier ratings",
]


def rmse(predicted: list[float], rows: list[int]) -> float:
    return float(np.sqrt(np.mean([(predicted[r] - GIVEN[r]) ** 2 for r in rows])))


def resampled(figure: Any) -> tuple[float, float]:
    """The 95 % interval: 200 times four users with replacement, each with both rows."""
    draw = np.random.default_rng(3)
    values = [figure([r for u in draw.integers(0, 4, 4) for r in (2 * u, 2 * u + 1)]) for _ in range(200)]
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def about(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


@pytest.fixture(scope="module")
def made() -> Report:
    return ratings(golden_likes.stars(), bootstrap_samples=200)


@pytest.mark.parametrize("name", TABLE)
def test_a_row_of_the_table_by_hand(made: Report, name: str) -> None:
    squares, misses, right, pairs = TABLE[name]
    predicted = PREDICTED[name]
    low, high = resampled(lambda rows: np.mean([abs(predicted[r] - GIVEN[r]) for r in rows]))
    assert made.data["results"]["table"][name] == {
        "rmse": about(((squares / 8) ** 0.5, *resampled(lambda rows: rmse(predicted, rows)))),
        "mae": about((misses / 8, low, high)),
        "accuracy": right / 8,
        "auc": about(pairs / 15),
    }


def test_the_fitted_rows_stand_in_the_table_as_they_predict(made: Report) -> None:
    rows = {row.name: row.predicted.clip(1, 5) for row in rating_rows(golden_likes.split_of(), seed=3)}
    assert set(made.data["results"]["table"]) == {*TABLE, *FITTED}
    for name in FITTED:
        assert made.data["results"]["table"][name]["rmse"][0] == about(rmse(list(rows[name]), [*range(8)]))
        difference = made.data["results"]["tuned_against"]["differences"][name][0]
        assert difference == about(0.866025 - rmse(list(rows[name]), [*range(8)]))


def test_differences_and_their_signs_by_hand(made: Report) -> None:
    against = made.data["results"]["tuned_against"]
    assert (against["metric"], against["best_baseline"], against["lower_is_better"]) == ("rmse", "global mean", True)
    # .866025 less the roots of 16/8, 37/8, 33.16667/8, 19/8 and 1/8
    expected = {
        "global mean": -0.548188, "user mean": -1.284556, "mean of earlier ratings": -1.170106, "untuned model": -0.675078,
        "tuned model, most likely rating": 0.512472,
    }  # fmt: skip
    own = PREDICTED["tuned model"]
    for name, value in expected.items():
        other = PREDICTED[name]
        around = resampled(lambda rows, other=other: rmse(own, rows) - rmse(other, rows))
        assert against["differences"][name] == about((value, *around)), name


def test_console_and_page_show_the_figures_of_the_json(made: Report) -> None:
    differences = made.data["results"]["tuned_against"]["differences"]
    expected = [
        [
            name, shown_interval(entry["rmse"]), shown_interval(entry["mae"]), shown(entry["accuracy"]), shown(entry["auc"]),
            shown_interval(differences[name], sign=True) if name in differences else "",
        ]
        for name, entry in made.data["results"]["table"].items()
    ]  # fmt: skip
    head, rows = console_table(made.text, "films: 8 test rows of 4 users, mean rating 3.62")
    assert head == ["", "rmse", "mae", "accuracy", "auc, above 3", "tuned minus it, rmse"]
    assert rows == expected
    head, *rows = Page(made.page).cells(0)
    assert head == ["", "rmse", "mae", "accuracy", "auc, above 3", "tuned minus it, rmse"]
    assert rows == expected


@pytest.mark.parametrize(
    ("sure", "value", "word"),
    [
        (golden_likes.SURE, "-.5482", "better"),
        # expected 2 4 4 2 2 4 2 2, misses -2 3 1 -3 -3 2 -2 -3: the root of 49/8, less that of 16/8
        ([1, 5, 5, 1, 1, 5, 1, 1], "+1.0607", "worse"),
        # expected 3.5 throughout, as the global mean
        ([4] * 8, "+.0000", "not shown to differ"),
    ],
)
def test_each_verdict_in_console_and_page(sure: list[int], value: str, word: str) -> None:
    made = ratings(golden_likes.stars(sure=sure), bootstrap_samples=200)
    than = "from" if word == "not shown to differ" else "than"
    assert (
        f"\nThe tuned model is {word} {than} the best baseline (global mean): {value} rmse, 95 % interval " in made.text
    )
    paragraph = Page(made.page).paragraphs[1]
    assert paragraph.startswith(f"Tuned minus the best baseline (global mean), rmse: {value}, 95 % interval ")
    assert paragraph.endswith(f"({word}).")
