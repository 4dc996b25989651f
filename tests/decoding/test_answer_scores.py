"""Yes or No: what is scored, where, and by which formula; bad answers, rows that are all alike, when to stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from rectune.cli import main
from rectune.decoding.language_model import LanguageModelRanker, RankSettings
from rectune.decoding.shelf import Shelf
from rectune.methods.choosing import Patience
from rectune.methods.validation import validation_metrics
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Template, load_template
from rectune.recipe.load import bundled
from rectune.tasks.rows import TaskRows

TITLES = ["Yes Man", "No Country for Old Men", "Yes", "No.", "Heat", "Yesterday: No, Yes"]
ANSWERS = ({"liked": False}, {"liked": True})


@pytest.fixture
def model(checkpoints: dict[str, Path]) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(checkpoints["untied"]).eval()


def ranker(model: Any, folder: Path, template: Template | None = None, **settings: Any) -> LanguageModelRanker:
    from transformers import AutoTokenizer

    template = template or load_template(bundled("templates")[0] / "like-or-dislike.jinja")
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), [], form="plain")
    return LanguageModelRanker(model, encoder, template, RankSettings(template.name, **settings), progress=False)


def rows(titles: list[str]) -> TaskRows:
    def variables(i: int) -> dict[str, Any]:
        history = [{"title": title, "liked": n % 2 == 0} for n, title in enumerate(titles)]
        return {"history": history, "target": {"title": titles[i]}, "liked": False}

    return TaskRows(np.arange(len(titles)), variables, "answer", np.arange(len(titles)) % 2, ANSWERS)


@torch.no_grad()
def after_prompt(judge: LanguageModelRanker, found: TaskRows, i: int) -> torch.Tensor:
    """Probabilities of the token that follows a prompt, by a plain forward pass."""
    (prompt,) = judge.prompts(found, [i])
    return judge.model(input_ids=torch.tensor([prompt])).logits[0, -1].double().softmax(-1)


def test_titles_that_begin_with_yes_or_no_change_nothing(model: Any, checkpoints: dict[str, Path]) -> None:
    judge = ranker(model, checkpoints["untied"])
    found = rows(TITLES)
    no, yes = judge._completions(found)[0]
    assert len(no) == len(yes) == 1  # the tiny tokenizer knows both words
    together = judge.answer(found)
    for i in range(len(TITLES)):
        p = after_prompt(judge, found, i)
        assert together[i, 1] == pytest.approx(float(p[yes[0]] / (p[yes[0]] + p[no[0]])), abs=1e-6)


def test_the_papers_formula_and_all_spellings_by_hand(model: Any, checkpoints: dict[str, Path]) -> None:
    found = rows(TITLES)
    paper = ranker(model, checkpoints["untied"], normaliser="tallrec")
    (no,), (yes,) = paper._completions(found)[0]
    p = after_prompt(paper, found, 1)
    assert paper.answer(found)[1, 1] == pytest.approx(float(1 / (1 + torch.exp(p[no] - p[yes]))), abs=1e-7)

    spelt = ranker(model, checkpoints["untied"], spellings=True)
    ids, of = spelt._completions(found)
    assert of == [0, 0, 0, 1, 1, 1]
    each = [_whole(spelt, found, 1, one) for one in ids]
    assert spelt.answer(found)[1, 1] == pytest.approx(sum(each[3:]) / sum(each), abs=1e-6)


@torch.no_grad()
def _whole(judge: LanguageModelRanker, found: TaskRows, i: int, answer: list[int]) -> float:
    (prompt,) = judge.prompts(found, [i])
    logp = judge.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double().log_softmax(-1)
    return float(np.exp(sum(float(logp[len(prompt) - 1 + n, token]) for n, token in enumerate(answer))))


def worded(tmp_path: Path, yes: str, no: str) -> Template:
    file = tmp_path / "odd.jinja"
    file.write_text(
        "{% set wordings = 1 %}{% set end = false %}{% macro prompt(wording, target) %}{{ target.title }}?{% endmacro %}"
        f"{{% macro completion(wording, liked) %}}{{{{ '{yes}' if liked else '{no}' }}}}{{% endmacro %}}"
    )
    return load_template(file)


def test_answers_that_share_their_first_token_are_told_apart_by_the_others(
    model: Any, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    template = worded(tmp_path, "Liked it", "Liked Bread")
    judge = ranker(model, checkpoints["untied"], template)
    ids, _ = judge._completions(rows(TITLES))
    assert ids[0][0] == ids[1][0]
    p = [_whole(judge, rows(TITLES), 2, one) for one in ids]
    assert judge.answer(rows(TITLES))[2, 1] == pytest.approx(p[1] / sum(p), abs=1e-6)
    with pytest.raises(ValueError, match=r"`rank.normaliser: tallrec` reads the first token"):
        ranker(model, checkpoints["untied"], template, normaliser="tallrec").answer(rows(TITLES))


def test_answers_that_cannot_be_scored_are_refused(model: Any, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one is the beginning of another"):
        ranker(model, checkpoints["untied"], worded(tmp_path, "Liked", "Liked Bread")).answer(rows(TITLES))
    with pytest.raises(ValueError, match="needs a macro `spellings"):
        ranker(model, checkpoints["untied"], worded(tmp_path, "Yes", "No"), spellings=True).answer(rows(TITLES))
    unknown = ranker(model, checkpoints["untied"])
    unknown.encoder.tokenizer.unk_token = unknown.encoder.tokenizer.convert_ids_to_tokens(
        unknown._completions(rows(TITLES))[0][1][0]
    )
    with pytest.raises(ValueError, match=r"the tokenizer has no tokens for the answer 'Yes' of like-or-dislike.jinja"):
        unknown.answer(rows(TITLES))


def test_validation_with_one_answer_has_no_auc(model: Any, checkpoints: dict[str, Path]) -> None:
    judge, found = ranker(model, checkpoints["untied"]), rows(TITLES)
    assert 0 <= validation_metrics(judge, found, Shelf())["auc"] <= 1
    assert np.isnan(validation_metrics(judge, found.take(np.array([0, 2, 4])), Shelf())["auc"])


RECIPE = """
include: tallrec-movie-json-cpu.yaml
data: {call: table, path: log.csv, user: user, item: item, time: time, rating: rating}
split: {call: leave_one_out, max_history: 5}
tasks: [{call: like_or_dislike, template: like-or-dislike-names.jinja, like_above: 3}]
stages:
  - call: sft
    max_steps: 40
    learning_rate: 0.0
    per_device_train_batch_size: 4
    max_length: 64
    eval_strategy: steps
    eval_steps: 1
    save_strategy: steps
    save_steps: 1
    load_best_model_at_end: true
    metric_for_best_model: eval_auc
    greater_is_better: true
    early_stopping_patience: 3
eval: {bootstrap_samples: 10, wording_rows: 0}
"""


def shop(folder: Path, rating: Any) -> Path:
    made = [(f"u{u}", f"i{(u * 3 + n) % 11}", n, rating(u, n)) for u in range(12) for n in range(6)]
    pl.DataFrame(made, schema=["user", "item", "time", "rating"], orient="row").write_csv(folder / "log.csv")
    file = folder / "recipe.yaml"
    file.write_text(RECIPE + f"output_dir: {folder / 'run'}\n")
    return file


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_training_stops_when_it_no_longer_gets_better(tmp_path: Path) -> None:
    recipe = shop(tmp_path, lambda u, n: 1 + (u + n) % 5)
    assert main(["train", str(recipe), "--traceback"]) == 0
    log = json.loads(next((tmp_path / "run" / "stages").glob("train0-*/log_history.json")).read_text())
    seen = [entry["step"] for entry in log if "eval_auc" in entry]
    assert seen == [1, 2, 3, 4]  # with a learning rate of 0 nothing gets better: three more evaluations, then it stops


@pytest.mark.filterwarnings("ignore")
def test_a_missing_answer_is_an_error_in_training_and_a_warning_in_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = shop(tmp_path, lambda u, n: 5)
    assert main(["train", str(recipe)]) == 1
    assert "error: all 36 training rows have the same answer" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("stages/train0-*"))


def test_a_validation_part_with_one_answer_warns(tmp_path: Path) -> None:
    from rectune.recipe.load import load_recipe
    from rectune.run.check import check
    from rectune.run.run import open_recipe

    recipe = shop(tmp_path, lambda u, n: 5 if n == 4 else 1 + (u + n) % 5)
    with pytest.warns(UserWarning, match="all 12 validation rows have the same answer: eval_auc is NaN"):
        check(open_recipe(load_recipe(recipe)))


@pytest.mark.filterwarnings("ignore")
def test_more_shots_than_rows_and_patience_without_a_metric_are_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = shop(tmp_path, lambda u, n: 1 + (u + n) % 5)
    assert main(["train", str(recipe), "--split.shots", "99"]) == 1
    assert "error: `split.shots` is 99, but there are 36 training rows" in capsys.readouterr().err
    assert main(["train", str(recipe), "--stages.0.load_best_model_at_end", "false"]) == 1
    assert "`early_stopping_patience` needs `load_best_model_at_end: true`" in capsys.readouterr().err
    assert main(["train", str(recipe), "--stages.0.metric_for_best_model", "eval_rmse"]) == 1
    assert "no evaluation of this run gives `eval_rmse`; it can be eval_loss, eval_auc." in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("stages/train0-*"))


def test_patience_goes_on_counting_where_a_stopped_training_was() -> None:
    log = [{"step": step, name: 0.5} for step in (1, 2, 3, 4) for name in ("eval_loss", "eval_auc")]
    args = TrainingArguments(
        "unused", eval_strategy="steps", save_strategy="steps", metric_for_best_model="auc", load_best_model_at_end=True
    )
    for best, waited, stops in ((4, 0, False), (2, 2, False), (1, 3, True)):
        callback, control = Patience(early_stopping_patience=3), TrainerControl()
        state = TrainerState(log_history=log, best_global_step=best, global_step=4)
        callback.on_train_begin(args, state, control)
        assert (callback.early_stopping_patience_counter, control.should_training_stop) == (waited, stops)
