"""The section `sasrec`: what it asks for, what it refuses, and where the one that is trained goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rectune.baselines import sasrec_training
from rectune.cli import main
from rectune.recipe.load import load_recipe
from rectune.run.asked import ask
from rectune.run.line import line_of
from tests.runs import results, stages

TFIDF = ("vectors", "[{call: tfidf, text: [title], dimensions: 4}]")
REFUSED: dict[str, tuple[str, str, str]] = {
    "no mapping": ("sasrec", "3", "`sasrec`: got 3, but it must be a mapping"),
    "an unknown key": ("sasrec", "{drop_out: 0.2}", "`sasrec.drop_out`: SASRec has no such key. Did you mean `dropout`?"),
    "a wrong type": ("sasrec", "{epochs: many}", "`sasrec.epochs`: got 'many'"),
    "an unknown loss": ("sasrec", "{loss: bpr}", "`sasrec.loss`: got 'bpr', but it must be one of 'full_softmax', 'sampled_softmax'"),
    "out of range": ("sasrec", "{dropout: 1.0}", "`sasrec`: `dropout` of SASRec must be from 0 on and below 1, got 1.0"),
    "no patience at all": ("sasrec", "{patience: 0}", "`sasrec`: `patience` of SASRec must be at least 1, got 0"),
    "nothing to try": ("sasrec", "{dropout: []}", "`sasrec.dropout`: got []; give a value"),
    "too many": ("sasrec", "{dropout: [0, 0.1, 0.2], history: [20, 50]}", "`sasrec`: 6 configurations; at most 4 are tried"),
    "vectors of nobody": ("sasrec", "{vectors: initial}", "`sasrec.vectors`: this recipe has no section `vectors`"),
    "a word of before, eval": ("eval.sasrec_epochs", "30", "`eval.sasrec_epochs`: there is no such key any more"),
    "a word of before, prior": ("rank.prior", "{call: prior, sasrec_epochs: 30}", "`rank.prior.sasrec_epochs`: there is no such key"),
    "a share of it": ("rank.prior", "{call: prior, sasrec: 0.5}", "`rank.prior.sasrec`: got 0.5; it says whether"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_does_not_understand_is_refused_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    key, value, said = REFUSED[name]
    nothing = ["--vectors", "null"] if name == "vectors of nobody" else []
    assert main(["plan", "quickstart", f"--{key}", value, *nothing]) != 0
    error = capsys.readouterr().err
    assert said in error.replace(" (command line)", "")
    assert error.count("\n") == 1


def asked_with(*sections: tuple[str, str]) -> Any:
    return ask(load_recipe("quickstart", sections), need="no files")


def test_lists_are_configurations_and_vectors_are_needed_only_where_they_enter(tmp_path: Path) -> None:
    asked = asked_with(("sasrec", "{dropout: [0.2, 0.5], vectors: [null, initial]}"), TFIDF)
    assert [(one.dropout, one.vectors) for one in asked.sasrec.several] == [
        (0.2, None), (0.2, "initial"), (0.5, None), (0.5, "initial"),
    ]  # fmt: skip
    boxes = {box.name: box for box in line_of(asked, without=tmp_path)}
    assert boxes["sasrec"].needs == ("split", "vectors")
    alone = asked_with(("sasrec", "{epochs: 3}"), ("rank.prior", "{call: prior}"))
    boxes = {box.name: box for box in line_of(alone, without=tmp_path)}
    assert boxes["sasrec"].needs == ("split",)
    assert boxes["prior"].needs == ("split", "sasrec")
    without = asked_with(("sasrec", "{epochs: 3}"), ("rank.prior", "{call: prior, sasrec: false}"))
    assert {box.name: box.needs for box in line_of(without, without=tmp_path)}["prior"] == ("split",)
    assert asked_with().sasrec is None


@pytest.mark.heavy
def test_a_finished_run_gets_one_and_a_killed_training_goes_on(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.runs import train

    recipe = tmp_path / "quick.yaml"
    recipe.write_text(finished[0].read_text().replace(str(finished[1]), str(tmp_path / "run")))
    train(recipe)
    before = stages(tmp_path / "run")
    asked = ["eval", str(tmp_path / "run"), "--sasrec", "{epochs: 4, patience: 9, dimensions: [4, 8]}"]
    monkeypatch.setattr(sasrec_training, "EVERY", 0.0)
    trained: list[tuple[int, int]] = []
    run = sasrec_training._Training.run_epoch

    def interrupted(self: Any) -> None:
        if len(trained) == 6:
            raise KeyboardInterrupt
        trained.append((self.settings.dimensions, self.epoch))
        run(self)

    monkeypatch.setattr(sasrec_training._Training, "run_epoch", interrupted)
    assert main(asked) != 0
    assert trained == [(4, 0), (4, 1), (4, 2), (4, 3), (8, 0), (8, 1)]
    trained.append((0, 0))
    assert main(asked) == 0
    assert trained[7:] == [(8, 2), (8, 3)]
    found = results(tmp_path / "run")
    settings = found["baseline_settings"]["SASRec, full softmax"]
    assert [one["dimensions"] for one in settings["tried"]] == [4, 8]
    assert settings["ndcg@10"] == max(one["ndcg@10"] for one in settings["tried"])
    assert "SASRec, full softmax" in found["protocols"]["seen items hidden"]
    assert before.items() <= stages(tmp_path / "run").items()  # nothing else was built again
    json.dumps(settings)
