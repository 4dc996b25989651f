"""The rating task: its scale, its rows, its answers, and what is refused."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.cli import main
from rectune.decoding.shelf import Shelf
from rectune.indexing.atomic import atomic
from rectune.log.cleaning import make_log
from rectune.log.log import Log, LogWarning
from rectune.log.rating_scale import scale_of
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.methods.validation import validation_metrics
from rectune.prompts.template import load_template
from rectune.recipe.load import bundled, load_recipe
from rectune.run.preview import preview
from rectune.tasks.rating import rating
from tests.test_cli import fails


def log_of(ratings: list[float] | None) -> Log:
    """Users of four events on four items, rated in this order."""
    count = 8 if ratings is None else len(ratings)
    events = pl.DataFrame({"user": [f"u{n // 4}" for n in range(count)], "item": [f"i{n % 4}" for n in range(count)]})
    if ratings is not None:
        events = events.with_columns(rating=pl.Series(ratings))
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(4)], "title": ["Tea", "Pot", "Cup", "Jug"]})
    return make_log(events, items, source="tea shop")


def scale(ratings: list[float] | None, low: float | None = None, high: float | None = None, step: float = 1.0) -> Any:
    return scale_of(log_of(ratings), low=low, high=high, step=step)


STARS = [4.0, 1.0, 5.0, 3.0, 2.0, 2.0, 4.0, 5.0]


def test_a_scale_is_given_by_its_ends_and_its_step() -> None:
    assert scale(STARS, 1, 5).values == (1, 2, 3, 4, 5)
    assert scale(STARS, 1, 5).texts == ("1", "2", "3", "4", "5")
    assert scale(STARS, 0.5, 5, 0.5).texts == ("0.5", "1.0", "1.5", "2.0", "2.5", "3.0", "3.5", "4.0", "4.5", "5.0")


def test_without_ends_the_scale_is_what_the_log_holds() -> None:
    assert scale([1.0, 5.0, 3.0, 3.0]).values == (1, 3, 5)
    assert scale([3.5, 5.0, 3.0, 3.0]).texts == ("3.0", "3.5", "5.0")
    assert scale([0.2, 0.25, 0.2, 0.25]).texts == ("0.20", "0.25")


def test_positions_on_a_scale() -> None:
    log = log_of([3.5, 5.0, 3.0, 3.0])
    assert log.ratings is not None
    assert scale_of(log, low=None, high=None, step=1).positions(log.ratings, "x").tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize(
    ("ratings", "ends", "message"),
    [
        (None, (), "tea shop: `rating` needs ratings, and this log has none"),
        ([2.0] * 4, (), "tea shop: every rating is 2, so there is nothing to tell apart"),
        ([n / 7 for n in range(40)], (), "40 different ratings from 0 to 5.5714 are too many to answer with"),
        (STARS, (1,), "`high` is missing: give both `low` and `high`, or neither"),
        (STARS, (1, 5, 3), "`low` 1, `high` 5 and `step` 3 make no scale"),
        (STARS, (1, 5, 0), "make no scale: `step` must be above 0"),
        (STARS, (5, 1), "`low` 5, `high` 1 and `step` 1 make no scale"),
    ],
)  # fmt: skip
def test_what_makes_no_scale_is_refused(ratings: Any, ends: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scale(ratings, *ends)


def test_ratings_off_the_scale_are_refused_with_what_would_cover_them() -> None:
    split = leave_one_out(log_of([4.0, 1.0, 0.5, 3.0, 2.5, 2.0, 4.0, 5.0]))
    with pytest.raises(ValueError) as error:
        rating(split, atomic(split), "test", low=1, high=5)
    assert str(error.value) == (
        "tea shop: 2 of 8 ratings are none of the answers 1, 2, 3, 4, 5, e.g. 0.5; they run from 0.5 to 5. Give `low`, "
        "`high` and `step` that cover them, or leave the three out to take the ratings of the log."
    )


def test_a_row_shows_rated_items_and_asks_for_the_targets_rating() -> None:
    split = leave_one_out(log_of(STARS))
    rows = rating(split, atomic(split), "test", low=1, high=5)
    assert (rows.kind, rows.values) == ("answer", (1, 2, 3, 4, 5))
    assert rows.target.tolist() == [2, 4]  # 3 and 5, as positions
    assert rows.answers == tuple({"rating": text} for text in "12345")
    row = rows.variables(1)
    assert [(item["title"], item["rating"]) for item in row["history"]] == [("Tea", "2"), ("Pot", "2"), ("Cup", "4")]
    assert (row["target"]["title"], row["rating"], row["lowest"], row["highest"]) == ("Jug", "5", "1", "5")
    assert "rating" not in row["target"]


def test_no_wording_prints_the_answer_into_the_prompt() -> None:
    split = leave_one_out(log_of([4.0, 1.0, 4.0, 3.0, 2.0, 2.0, 4.0, 5.0]))
    variables = rating(split, atomic(split), "test", low=1, high=6).variables(0)
    for name in ("rating.jinja", "rating-names.jinja"):
        template = load_template(bundled("templates")[0] / name)
        for wording in range(template.wordings):
            prompt = "".join(s.text for s in template.prompt(wording, variables) if s.kind == "data")
            assert "3" not in prompt
            assert "".join(s.text for s in template.completion(wording, variables)).strip() == "3"


def test_validation_is_the_rmse_of_the_expected_rating() -> None:
    split = leave_one_out(log_of(STARS))
    rows = rating(split, atomic(split), "test", low=1, high=5)
    chances = np.array([[0, 0.5, 0, 0.5, 0], [0.5, 0, 0, 0, 0.5]])  # expected 3 and 3; given 3 and 5
    ranker: Any = SimpleNamespace(answer=lambda _: chances)
    assert validation_metrics(ranker, rows, Shelf()) == {"rmse": pytest.approx(np.sqrt((0 + 4) / 2))}


# ---------------------------------------------------------------------------------------------------------------- runs

RATING = """
include: rated.yaml
tasks:
  - {call: rating, template: rating-names.jinja}
stages:
  - call: sft
    max_steps: 6
    per_device_train_batch_size: 8
    learning_rate: 1.0e-2
    max_length: 64
    eval_strategy: steps
    eval_steps: 2
    save_strategy: steps
    save_steps: 2
    load_best_model_at_end: true
    metric_for_best_model: eval_rmse
    greater_is_better: false
    ranked_rows: 12
rank: {template: rating-names.jinja}
eval: {call: ratings, bootstrap_samples: 20, examples: 3}
"""


@pytest.fixture
def rating_recipe(rated_recipe: Path) -> Path:
    """A rating recipe in seconds."""
    file = rated_recipe.with_name("rating.yaml")
    file.write_text(RATING + f"output_dir: {rated_recipe.parent / 'run'}\n")
    return file


@pytest.mark.heavy
def test_a_rating_run_stops_on_rmse_and_reports_every_row(
    rating_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(rating_recipe), "--traceback", "--seeds", "0,1"]) == 0
    out = capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "seed-0" / "report.json").read_text())
    table, against = report["results"]["table"], report["results"]["tuned_against"]
    assert list(table) == [
        "global mean", "user mean", "biases", "matrix factorisation", "mean of earlier ratings", "biases, earlier ratings",
        "matrix factorisation, earlier ratings", "untuned model", "tuned model", "tuned model, most likely rating",
    ]  # fmt: skip
    assert set(against["differences"]) == set(table) - {"tuned model"}
    best = against["best_baseline"]
    assert table[best]["rmse"][0] == min(table[name]["rmse"][0] for name in list(table)[:7])
    gap = table["tuned model"]["rmse"][0] - table[best]["rmse"][0]
    assert against["differences"][best][0] == pytest.approx(gap)
    seen = [entry["eval_rmse"] for entry in report["training"][0] if "eval_rmse" in entry]
    assert len(seen) >= 3
    assert "Predictions by the rating given" in (tmp_path / "run" / "seed-0" / "report.html").read_text()
    (summary,) = json.loads((tmp_path / "run" / "grid.json").read_text())["grid"]
    ones = [json.loads((tmp_path / "run" / f"seed-{s}" / "report.json").read_text()) for s in (0, 1)]
    tuned = [one["results"]["table"]["tuned model"]["rmse"][0] for one in ones]
    assert summary["results"]["ratings"]["tuned model"]["rmse"][0] == pytest.approx(np.mean(tuned))
    assert "Tuned minus the best baseline: seed 0: " in out


@pytest.mark.heavy
def test_ratings_of_two_lengths_are_told_apart(rating_recipe: Path, tmp_path: Path) -> None:
    """'1' begins '10', so both are scored with the end of text."""
    log = pl.read_csv(tmp_path / "log.csv").with_columns(rating=pl.col("rating") * 2)
    log.with_columns(rating=pl.when(pl.col("rating") == 2).then(1).otherwise("rating")).write_csv(tmp_path / "log.csv")
    few = ["--stages.0.max_steps", "2"]
    assert main(["train", str(rating_recipe), "--traceback", *few]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["results"]["rating_values"] == [1, 4, 6, 8, 10]
    (answers,) = (tmp_path / "run" / "stages").glob("answer-tuned-*/answers.npy")
    assert np.load(answers).sum(axis=1) == pytest.approx(1)


def test_half_stars_are_previewed(rating_recipe: Path, data: Any) -> None:
    small = [
        ("data", json.dumps({"call": "movielens", "size": "latest-small", "path": str(data("ml-latest-small"))})),
        ("split", '{call: by_time, max_history: 5}'),
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LogWarning)  # five titles of that set repeat
        text = preview(load_recipe(rating_recipe, small), examples=20)
    answers = set(re.findall(r"⟦ ?(\d\.\d)", text))
    assert len(answers) >= 3
    assert any(answer.endswith(".5") for answer in answers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data.rating", "null"], "log.csv: `rating` needs ratings, and this log has none"),
        (["--tasks.0.low", "1", "--tasks.0.high", "4"], "ratings are none of the answers 1, 2, 3, 4, e.g. 5"),
        (["--tasks.0.low", "1"], "`high` is missing"),
        (["--tasks.0.low", "one"], "`tasks.0.low`: got 'one'"),
    ],
)
def test_a_bad_rating_run_is_one_line(
    rating_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    assert message in fails(capsys, "train", str(rating_recipe), *change)
    assert not list(tmp_path.glob("run/report*"))


def test_a_judge_of_another_kind_is_refused_before_anything_is_tuned(
    rated_recipe: Path, rating_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = fails(capsys, "train", str(rated_recipe), "--eval", "{call: ratings}")
    assert "judges tasks of the kind `rating`, but `like_or_dislike` is of the kind `answer`" in error
    other = ["--eval", "{call: answers}", "--output_dir", str(tmp_path / "other")]
    error = fails(capsys, "train", str(rating_recipe), *other)
    assert "judges tasks of the kind `answer`, but `rating` is of the kind `rating`" in error
    assert not list(tmp_path.glob("*/stages/train0-*"))
