"""Exports of Yes/No runs: the README's code gives the run's own probability, of either form of a quantised model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectune.run.rankings import answered
from rectune.run.run import open_run
from tests.exports import GPT2, LORA, SHOP, SHORT, T5, by_the_card, exported, tune

TEMPLATE = "like-or-dislike.jinja"


def films(
    place: Path, model: dict[str, Any], *, method: str = "sft", title: str = "Film number", more: Any = None
) -> Path:
    """A run on 30 users' ratings of 20 films."""
    draw = np.random.default_rng(0)
    events = [f"u{u},p{(u * 3 + n) % 20},{draw.integers(1, 6)},{n}" for u in range(30) for n in range(7)]
    (place / "log.csv").write_text("user,item,rating,time\n" + "\n".join(events))
    (place / "items.csv").write_text("item,title\n" + "\n".join(f"p{i},{title} {i}" for i in range(20)))
    files = {"path": str(place / "log.csv"), "items_path": str(place / "items.csv")}
    settings = {
        "data": {"call": "table", **files, "rating": "rating", "time": "time", "title": "title"},
        "split": SHOP["split"],
        "tasks": [{"call": "like_or_dislike", "template": TEMPLATE}],
        "model": model,
        "stages": [{**SHORT, "call": f"rectune.methods.{method}"}],
        "rank": {"template": TEMPLATE},
        "eval": {"call": "answers", "bootstrap_samples": 20},
        **(more or {}),
    }  # fmt: skip
    return tune(place, settings)


def by_the_readme(run: Path, folder: Path, rows: int) -> list[float]:
    """The probability of Yes for the first test rows by the README's code."""
    line, asked = open_run(run), []
    ids, split = line.log.items["item_id"].to_list(), line.split
    for row in range(rows):
        liked = [entry["liked"] for entry in line.rows.variables(row)["history"]]
        names = [ids[item] for item in split.history(split.test, row)]
        asked.append((list(zip(names, liked, strict=True)), ids[int(split.targets(split.test)[row])]))
    found: list[float] = by_the_card(folder, f"[chance_of_yes(it, history, target) for history, target in {asked!r}]")
    return found


@pytest.mark.heavy
@pytest.mark.parametrize(("method", "model"), [("sft", GPT2), ("seq2seq", T5)])
def test_the_readmes_code_gives_the_runs_probability(tmp_path: Path, method: str, model: dict[str, Any]) -> None:
    run = films(tmp_path, model, method=method)
    folder = exported(run)
    about = json.loads((folder / "rectune.json").read_text())
    assert about["prompts"] == {"compared": 30, "same": 30}
    said = (folder / "README.md").read_text()  # the log has one test row a user
    assert "Not defined (–): user_auc, which needs a user with a liked and a disliked test row." in said
    assert "nan" not in said.partition("## Measured")[2]
    assert [answer["means"] for answer in about["answers"]] == [{"liked": False}, {"liked": True}]
    assert "num_beams" not in json.loads((folder / "generation_config.json").read_text())
    np.testing.assert_allclose(by_the_readme(run, folder, 4), answered(open_run(run), "tuned")[0][:4, -1], atol=1e-5)


@pytest.mark.heavy
def test_titles_that_spell_a_special_token_are_warned_of(tmp_path: Path) -> None:
    run = films(tmp_path, GPT2, title="Film <|end|> number")
    with pytest.warns(UserWarning, match="30 of 30 prompts are encoded otherwise"):
        folder = exported(run)
    assert "Of 30 test prompts this code encodes 0 like the run" in (folder / "README.md").read_text()


@pytest.mark.heavy
def test_both_forms_of_a_quantised_run_have_their_auc(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    base = {"model_name_or_path": str(checkpoints["tied"]), "dtype": "bfloat16", "load_in_4bit": True, **LORA}
    run = films(tmp_path, base)
    folder = exported(run)
    forms = json.loads((folder / "rectune.json").read_text())["forms"]
    report = json.loads((run / "report.json").read_text())["results"]["table"]["tuned model"]
    assert forms["adapter on the quantised base"] == {"auc": pytest.approx(report["auc"][0])}
    (place,) = run.glob("stages/answer-merged-*")
    merged = np.load(place / "answers.npy")[:, -1]
    assert np.abs(merged - answered(open_run(run), "tuned")[0][:, -1]).max() > 0  # two models
    np.testing.assert_allclose(by_the_readme(run, folder, 4), merged[:4], atol=2**-6)  # bfloat16 logits
