"""The report of a Yes/No run, each figure worked out by hand from the answers of `golden_likes`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rectune.eval.answers import answers

from rectune.baselines.likes import logistic
from rectune.run.judged import Report
from tests.eval import golden_likes
from tests.eval.golden_likes import LIKED, USERS, YES
from tests.eval.tables import Page, console_table, shown, shown_interval

# (likes in the history + 1) / (its length + 2), (likes of the target among training targets + 2 x 1/2) / (their number + 2),
# and the root of the product of their odds: for u0's a, 3 and 1/2, so 1.22474 / 2.22474
SHARE = [3 / 4, 4 / 5, 1 / 4, 1 / 5, 2 / 4, 3 / 5, 3 / 4, 4 / 5]
RATE = [1 / 3, 1 / 2, 3 / 5, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 2]
BOTH = [0.550510, 0.666667, 0.414214, 0.333333, 0.5, 0.464102, 0.550510, 0.666667]
CHANCES = {
    "share of likes in the history": SHARE, "item's like-rate": RATE, "share and like-rate": BOTH,
    "untuned model": YES["untuned"], "tuned model": YES["tuned"],
}  # fmt: skip
FITTED = "logistic regression on both"

# AUC: of the 5 x 3 pairs of a liked and a disliked row, those in the right order, equal ones as half; user AUC: likewise within
# u0, u1 and u2, over 3 (u3 liked everything). Log loss and calibration error: sums over the 8 rows.
TABLE = {
    # pairs 2 + 0 + 1 + 2 + 2.5; .75 < .8, .2 < .25, .5 < .6; -log of .75 .2 .75 .2 .5 .4 .75 .8: 5.91450;
    # bins .2: .25 + .2 - 1, .5: .5 - 1, .6: .6, .7: 1.5 - 2, .8: 1.6 - 1, so .55 + .5 + .6 + .5 + .6
    "share of likes in the history": [7.5 / 15, 0, 0.739313, 2.75 / 8],
    # .5 + 1.5 + 1.5 + .5 + 1.5; only u2's 1/2 > 1/3; -log of 1/3 1/2 .4 1/2 1/2 2/3 1/3 1/2: 6.29157; bins .3: 1 - 2, .5: 2 - 3, .6: .6
    "item's like-rate": [5.5 / 15, 1 / 3, 0.786446, 2.6 / 8],
    # 2 + 0 + 2 + 2 + 2.5; only u2's .5 > .4641; sum 5.64827; bins .3: -.66667, .4: .87831, .5: -1.39898, .6: .33333
    "share and like-rate": [8.5 / 15, 1 / 3, 0.706034, 3.277296 / 8],
    # 3 + 4 x 1.5; .6 > .5, two ties: 1 + 1/2 + 1/2; log(1 / .6) + 7 log 2: 5.36286; bins .5: 3.5 - 4, .6: .6 - 1
    "untuned model": [9 / 15, 2 / 3, 0.670357, 0.9 / 8],
    # 3 + 2 + 2 + 2 + 3; u0 and u1 right; -log of .9 .7 .8 .6 .7 .2 .6 .9: 3.77830; bins .2: .2, .3: .3, .6: -.8, .7: -.3, .8: .8, .9: -.2
    "tuned model": [12 / 15, 2 / 3, 0.472288, 2.6 / 8],
}  # fmt: skip


def pairs(chances: list[float], rows: list[int]) -> float:
    """AUC, pair by pair."""
    liked = [chances[r] for r in rows if LIKED[r]]
    disliked = [chances[r] for r in rows if not LIKED[r]]
    right = [(a > b) + (a == b) / 2 for a in liked for b in disliked]
    return float(np.mean(right)) if right else float("nan")


def within_users(chances: list[float], rows: list[int]) -> float:
    """AUC within each user, weighted by rows; each user as often as drawn."""
    values = {u: pairs(chances, [r for r in range(8) if USERS[r] == u]) for u in range(4)}
    known = [values[USERS[r]] for r in rows if not np.isnan(values[USERS[r]])]
    return float(np.mean(known)) if known else float("nan")


def resampled(figure: Callable[[list[int]], float]) -> tuple[float, float]:
    """The 95 % interval: 200 times four users with replacement, each with both rows; NaN left out."""
    draw, values = np.random.default_rng(3), []
    for _ in range(200):
        values.append(figure([row for user in draw.integers(0, 4, 4) for row in (2 * user, 2 * user + 1)]))
    return float(np.nanquantile(values, 0.025)), float(np.nanquantile(values, 0.975))


def about(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


@pytest.fixture(scope="module")
def made() -> Report:
    return answers(golden_likes.likes(), bootstrap_samples=200)


@pytest.fixture(scope="module")
def chances() -> dict[str, list[float]]:
    """Of every row of the table, the fitted one as its own function gives it."""
    split = golden_likes.split_of()
    fitted = logistic(split, split.test, np.asarray(split.log.ratings > 3))
    return {**CHANCES, FITTED: fitted.tolist()}


def test_nothing_in_the_report_is_left_unchecked(made: Report) -> None:
    assert set(made.data["results"]) == {
        "table", "tuned_against", "tuned_against_within_users", "wordings", "rows", "users", "share_liked", "split", "log",
        "index_health", "audits",
    }  # fmt: skip
    assert set(made.data["results"]["table"]) == {*TABLE, FITTED}


@pytest.mark.parametrize("name", TABLE)
def test_a_row_of_the_table_by_hand(made: Report, name: str) -> None:
    auc, user_auc, log_loss, calibration_error = TABLE[name]
    entry, p = made.data["results"]["table"][name], CHANCES[name]
    assert entry == {
        "auc": about((auc, *resampled(lambda rows: pairs(p, rows)))),
        "user_auc": about((user_auc, *resampled(lambda rows: within_users(p, rows)))),
        "log_loss": about(log_loss),
        "calibration_error": about(calibration_error),
    }


def test_the_fitted_row_stands_in_the_table_as_it_answers(made: Report, chances: dict[str, list[float]]) -> None:
    entry, p = made.data["results"]["table"][FITTED], chances[FITTED]
    happened = [one if liked else 1 - one for one, liked in zip(p, LIKED, strict=True)]
    assert entry["auc"] == about((pairs(p, [*range(8)]), *resampled(lambda rows: pairs(p, rows))))
    assert entry["user_auc"] == about((within_users(p, [*range(8)]), *resampled(lambda rows: within_users(p, rows))))
    assert entry["log_loss"] == about(-np.log(happened).mean())


@pytest.mark.parametrize(
    ("key", "metric", "figure", "values"),
    [
        # 12/15 less each of .5, .36667, .56667, .6
        ("tuned_against", "auc", pairs, {"share of likes in the history": 0.3, "item's like-rate": 0.433333, "share and like-rate": 0.233333, "untuned model": 0.2}),
        # 2/3 less each of 0, 1/3, 1/3, 2/3
        ("tuned_against_within_users", "user auc", within_users, {"share of likes in the history": 0.666667, "item's like-rate": 0.333333, "share and like-rate": 0.333333, "untuned model": 0}),
    ],
)  # fmt: skip
def test_differences_and_their_signs_by_hand(
    made: Report, chances: dict[str, list[float]], key: str, metric: str, figure: Any, values: dict[str, float]
) -> None:
    against = made.data["results"][key]
    assert (against["metric"], against["best_baseline"]) == (
        metric,
        FITTED,
    )  # .7 and 2/3, the highest of the four rules
    assert set(against["differences"]) == {*values, FITTED}
    own = YES["tuned"]
    for name, found in against["differences"].items():
        other = chances[name]
        assert found == about((
            values.get(name, figure(own, [*range(8)]) - figure(other, [*range(8)])),
            *resampled(lambda rows, other=other: figure(own, rows) - figure(other, rows)),
        )), name  # fmt: skip


def test_counts_by_hand(made: Report) -> None:
    results = made.data["results"]
    assert (results["rows"], results["users"], results["share_liked"]) == (8, 4, 5 / 8)
    assert (results["log"]["users"], results["log"]["items"], results["log"]["events"]) == (4, 4, 16)


def test_console_and_page_show_the_figures_of_the_json(made: Report) -> None:
    differences = made.data["results"]["tuned_against"]["differences"]
    expected = [
        [
            name, shown_interval(entry["auc"]), shown_interval(entry["user_auc"]), shown(entry["log_loss"]),
            shown(entry["calibration_error"]), shown_interval(differences[name], sign=True) if name in differences else "",
        ]
        for name, entry in made.data["results"]["table"].items()
    ]  # fmt: skip
    head, rows = console_table(made.text, "films: 8 test rows of 4 users, 62.5% liked")
    assert head == ["", "auc", "user auc", "log loss", "calibration", "tuned minus it, auc"]
    assert rows == expected
    (tuned,) = [row for row in rows if row[0] == "tuned model"]
    assert [cell[:5] for cell in tuned[1:]] == [".8000", ".6667", ".4723", ".3250", ""]
    head, *rows = Page(made.page).cells(0)
    assert head == ["", "auc", "per-user auc", "log loss", "calibration error", "tuned minus it, auc"]
    assert rows == expected


def test_the_sentences_by_hand(made: Report) -> None:
    results, lines = made.data["results"], made.text.split("\n")
    over, within = (results[key]["differences"][FITTED] for key in ("tuned_against", "tuned_against_within_users"))
    around = [f"{shown(low, sign=True)} to {shown(high, sign=True)}" for _, low, high in (over, within)]
    assert lines[-3:] == [
        f"The tuned model is not shown to differ from the best baseline ({FITTED}): +.1000 auc, 95 % interval {around[0]}.",
        f"Within users: The tuned model is not shown to differ from the best baseline ({FITTED}): +.0000 user auc, 95 % interval {around[1]}.",
        "Took: training, stage 0 5 s.",
    ]
    assert Page(made.page).paragraphs[1:3] == [
        f"Tuned minus the best baseline ({FITTED}), auc: +.1000, 95 % interval {around[0]} (not shown to differ).",
        f"Tuned minus the best baseline ({FITTED}), user auc: +.0000, 95 % interval {around[1]} (not shown to differ).",
    ]


def test_a_model_that_is_always_wrong_is_worse() -> None:
    wrong = answers(golden_likes.likes(tuned=[0.1 if liked else 0.9 for liked in LIKED]), bootstrap_samples=200)
    assert wrong.data["results"]["table"]["tuned model"]["auc"][0] == 0
    assert f"\nThe tuned model is worse than the best baseline ({FITTED}): -.7000 auc" in wrong.text
    assert Page(wrong.page).paragraphs[1].endswith("(worse).")


def test_an_untuned_model_that_is_always_right_is_no_baseline() -> None:
    results = answers(
        golden_likes.likes(untuned=[0.9 if liked else 0.1 for liked in LIKED]), bootstrap_samples=20
    ).data["results"]
    assert results["table"]["untuned model"]["auc"][0] == 1
    assert results["tuned_against"]["best_baseline"] == FITTED
    assert results["tuned_against"]["differences"]["untuned model"][0] == about(-0.2)


def test_the_curve_of_calibration_says_how_many_rows_each_point_has(made: Report) -> None:
    texts = re.findall(
        r">([^<>]*)</text>", Page(made.page).figures["Calibration of the tuned model (rows at each point)"]
    )
    # .2, .3, twice .6, .7, .8, twice .9
    assert texts[-6:] == ["1", "1", "2", "1", "1", "2"]
