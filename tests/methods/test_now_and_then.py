"""Checkpoints of a training that asks for none: now and then, so that a kill does not cost all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rectune.methods import sft
from tests.runs import Stopped, stopping, tuned

RECIPE = """
include: quickstart.yaml
data: {users: 20, items: 40, categories: 2, shortest: 4, longest: 6}
vectors: null
index: {call: atomic}
stages:
  0: {max_steps: 6, num_train_epochs: 3, per_device_train_batch_size: 4, logging_steps: 2, save_minutes: MINUTES, eval_strategy: "no", save_strategy: "no", load_best_model_at_end: false}
rank: {beams: 2, k: 2}
eval: {k: [1]}
"""


def losses(stage: Path) -> list[Any]:
    return [
        (entry["step"], entry["loss"])
        for entry in json.loads((stage / "log_history.json").read_text())
        if "loss" in entry
    ]


@pytest.mark.parametrize(
    ("minutes", "kept", "steps"), [("1.0e-6", ["checkpoint-2", "checkpoint-4"], 2), ("10", [], 6), ("0", [], 6)]
)
def test_a_stage_that_was_killed_goes_on_from_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: str, kept: list[str], steps: int
) -> None:
    recipe = tmp_path / "now.yaml"
    recipe.write_text(RECIPE.replace("MINUTES", "0"))
    (whole,) = tuned(recipe, str(tmp_path / "whole")).glob("stages/train0-*")
    recipe.write_text(RECIPE.replace("MINUTES", minutes))
    plain = sft._Trainer.training_step
    with monkeypatch.context() as patched:
        patched.setattr(sft._Trainer, "training_step", stopping(plain, 5))
        with pytest.raises(Stopped):
            tuned(recipe, str(tmp_path / "killed"))
    (partial,) = (tmp_path / "killed").glob("stages/train0-*")
    assert sorted(file.name for file in partial.glob("checkpoints/*")) == kept
    counted: list[int] = []

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        counted.append(self.state.global_step)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(sft._Trainer, "training_step", step)
    (killed,) = tuned(recipe, str(tmp_path / "killed")).glob("stages/train0-*")
    assert len(counted) == steps
    assert killed.name == whole.name  # how often is no part of what is asked
    weights = [(stage / "model" / "model.safetensors").read_bytes() for stage in (whole, killed)]
    assert weights[0] == weights[1]
    assert losses(killed) == losses(whole)
    assert not (killed / "checkpoints").exists()
