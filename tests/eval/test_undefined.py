"""A figure that is not defined is named with what it needs, wherever it is shown, and no verdict rests on it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rectune.eval.answers import answers
from rectune.eval.ranking import ranking
from rectune.eval.ratings import ratings
from rectune.eval.sentences import verdict, wording_line
from rectune.eval.several import summarise
from rectune.eval.undefined import defined, undefined

from rectune.run.judged import HIDDEN, Report, as_json
from tests.eval import golden, golden_likes
from tests.eval.tables import Page

ALL_LIKED = [[5, 5, 4, 4]] * 4
USER_AUC = "user auc, which needs a user with a liked and a disliked test row."
AUC = "auc, which needs a liked and a disliked test row."
NO_USER_VERDICT = (
    "No verdict on the tuned model by user auc: the figure is not defined, as it needs a user with a liked and a disliked test row."
)  # fmt: skip
NO_VERDICT = (
    "No verdict on the tuned model by auc: the figure is not defined, as it needs a liked and a disliked test row."
)


def said(report: Report) -> tuple[list[str], list[str]]:
    """The sentences of the console below the table, and those of the page."""
    return report.text.split("\n"), Page(report.page).paragraphs


def test_with_one_test_row_a_user_the_auc_within_users_has_no_verdict() -> None:
    made = answers(golden_likes.likes(tested=(3,)), bootstrap_samples=20)
    console, page = said(made)
    assert f"Not defined (–): {USER_AUC}" in console
    assert f"Within users: {NO_USER_VERDICT}" in console
    assert f"Not defined (–): {USER_AUC}" in page
    assert NO_USER_VERDICT in page
    assert made.data["results"]["tuned_against_within_users"]["best_baseline"] is None
    assert sum("not shown to differ" in line for line in console) == 1  # by auc, which is defined
    assert sum("not shown to differ" in line for line in page) == 1


def test_where_every_test_row_is_liked_no_auc_has_a_verdict() -> None:
    console, page = said(answers(golden_likes.likes(ALL_LIKED), bootstrap_samples=20))
    for lines in (console, page):
        assert f"Not defined (–): {AUC}" in lines
        assert f"Not defined (–): {USER_AUC}" in lines
        assert NO_VERDICT in lines
        assert any(NO_USER_VERDICT in line for line in lines)
        assert not any("differ" in line or "better" in line or "worse" in line for line in lines)


def test_where_every_rating_is_above_the_line_of_likes_their_auc_is_not_defined() -> None:
    for lines in said(ratings(golden_likes.stars(ALL_LIKED), bootstrap_samples=20)):
        assert "Not defined (–): auc, which needs a test rating above 3 and one that is not." in lines
        assert any("global mean" in line or "mean of earlier ratings" in line for line in lines)  # RMSE has its verdict


def test_novelty_of_empty_lists_is_not_defined_and_says_whose(tmp_path: Path) -> None:
    evidence = golden.evidence(tmp_path, prior=False)
    whole = evidence.rankings["untuned", HIDDEN]
    empty = dataclasses.replace(whole, items=np.full_like(whole.items, -1), scores=np.full_like(whole.scores, -np.inf))
    made = ranking(dataclasses.replace(evidence, rankings=evidence.rankings | {("untuned", HIDDEN): empty}), k=[3])
    for lines in said(made):
        assert [line for line in lines if line.startswith("Not defined")] == [
            "Not defined (–): novelty@3 of untuned model, which needs a list that holds an item."
        ]
    assert made.data["results"]["protocols"][HIDDEN]["untuned model"]["coverage@3"] == 0


def test_an_oracle_that_is_no_better_than_popularity_makes_no_share(tmp_path: Path) -> None:
    for lines in said(ranking(golden.evidence(tmp_path), k=[3], oracle="tests.eval.test_undefined:know_nothing")):
        text = "\n".join(lines)
        assert "How far the tuned model goes from popularity to the oracle is not defined, as it needs an oracle that is better than popularity." in text  # fmt: skip
        assert "% of the way" not in text


def know_nothing(split: Any, rows: Any, **arguments: Any) -> Any:
    return np.zeros((len(rows), split.log.n_items))


def test_levels_at_which_no_two_items_share_their_codes_have_no_purity(tmp_path: Path) -> None:
    evidence = golden.evidence(tmp_path)
    for purity, told in (([0.5, None], True), ([0.5, 0.75], False)):
        health = evidence.index.health | {"purity": purity, "purity_by_chance": 0.25}
        index = dataclasses.replace(evidence.index, health=health)
        page = ranking(dataclasses.replace(evidence, index=index), k=[3]).page
        assert ("(by chance .2500). Not defined (–): the share where no two items share their codes." in page) == told


def test_a_report_in_which_all_is_defined_says_nothing_of_it(tmp_path: Path) -> None:
    for made in (
        ranking(golden.evidence(tmp_path), k=[3]),
        answers(golden_likes.likes()),
        ratings(golden_likes.stars()),
    ):
        assert "not defined" not in (made.text + made.page).lower()


def test_a_value_without_an_interval_has_no_verdict() -> None:
    against = {"best_baseline": "biases", "metric": "auc", "differences": {"biases": (0.1, float("nan"), float("nan"))}}
    assert verdict(against) == (
        "No verdict on the tuned model by auc: +.1000 beside the best baseline (biases), but the interval is not defined, as it "
        "needs samples of the users in which the figure is defined."
    )
    table = {"one": {"auc": (0.5, float("nan"), float("nan"))}, "other": {"auc": (0.5, 0.4, 0.6)}}
    assert undefined(table, {}) == [
        "Not defined (–): the interval of auc of one, which needs samples of the users in which the figure is defined."
    ]


def test_wordings_without_a_figure_say_why() -> None:
    nothing = {"mean": float("nan"), "min": float("nan"), "max": float("nan")}
    line = wording_line({"each": [{}, {}], "auc": nothing})
    assert line.endswith(
        "auc – (lowest –, highest –). Not defined (–): auc, which needs a liked and a disliked row in the sample."
    )


def test_a_seed_alone_has_no_deviation_and_undefined_means_say_what_they_need() -> None:
    data = json.loads(as_json(answers(golden_likes.likes(tested=(3,)), bootstrap_samples=20).data))
    alone = summarise([data], [{"seed": 0}])
    assert alone.text.endswith("\nNot defined (–): the standard deviation, which needs two seeds.")
    assert (
        "Not defined (–): user auc, which needs a user with a liked and a disliked test row in every run." in alone.text
    )
    both = summarise([data, data], [{"seed": 0}, {"seed": 1}])
    assert "standard deviation, which" not in both.text
    assert "user auc, which needs" in both.page


def test_settings_whose_figure_is_not_defined_are_summed_up_all_the_same() -> None:
    data = json.loads(as_json(answers(golden_likes.likes(ALL_LIKED), bootstrap_samples=20).data))
    cells = [{"seed": 0, "split.shots": shots} for shots in (2, 4)]
    made = summarise([data, data], cells)
    assert made.text.count("Tuned minus the best baseline: seed 0: not defined") == 2
    assert "– (none)" in made.text


def test_a_report_is_json_that_any_reader_reads() -> None:
    data = {
        "a": float("nan"),
        "b": (1.5, np.float64("inf")),
        "c": {"d": np.array([1.0, np.nan]), "e": np.int64(3)},
        "f": Path("x"),
    }
    text = as_json(data)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None],
        "c": {"d": [1, None], "e": 3},
        "f": "x",
    }


def test_what_is_defined() -> None:
    assert defined(0.0)
    assert defined((1.0, 0.5, 1.5))
    assert not any(map(defined, (None, float("nan"), (1.0, None, None), [float("nan")] * 3)))


def test_rows_that_not_every_seed_has_are_named_and_left_out() -> None:
    data = json.loads(as_json(answers(golden_likes.likes(), bootstrap_samples=20).data))
    other = json.loads(json.dumps(data))
    table = other["results"]["table"]
    name = next(
        row
        for row in table
        if row not in ("tuned model", "untuned model") and row != data["results"]["tuned_against"]["best_baseline"]
    )
    table["another name"] = table.pop(name)
    made = summarise([data, other], [{"seed": 0}, {"seed": 1}])
    assert made.data["grid"][0]["alone"] == [name, "another name"]
    assert (
        f"Rows of some runs only, such as a SASRec whose settings were chosen for each: {name}, another name."
        in made.text
    )
    assert not {name, "another name"} & set(made.data["grid"][0]["results"]["yes or no"])
    assert summarise([data, data], [{"seed": 0}, {"seed": 1}]).data["grid"][0]["alone"] == []
