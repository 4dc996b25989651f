"""A training says its steps, tokens a second, loss and what is left, where there is no terminal, too."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import transformers

from rectune.methods import seq2seq, sft
from rectune.methods.progress import TrainingBar
from rectune.runtime import progress


def test_a_line_has_steps_tokens_loss_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.05)
    monkeypatch.setattr("rectune.methods.progress.LOOK", 0.0)
    seen = [7000]
    bar = TrainingBar(lambda: seen[0])
    args = SimpleNamespace(disable_tqdm=False)
    state = SimpleNamespace(is_world_process_zero=True, max_steps=100, global_step=10, epoch=1.0)
    bar.on_train_begin(args, state, None)
    state.global_step, seen[0] = 20, 8000
    bar.on_log(args, state, None, logs={"loss": 1.25})
    time.sleep(0.01)
    bar.on_step_end(args, state, None)
    time.sleep(0.12)
    bar.close()
    line = capsys.readouterr().err.split("\n")[0]
    assert line.startswith("training: 20 of 100 steps (20 %), ")
    tokens = int(line.partition(" tokens/s")[0].rpartition(" ")[2].replace(",", ""))
    assert 0 < tokens <= 100_000  # a thousand since this attempt began, in a hundredth of a second or more
    assert ", loss 1.250, 0:00:0" in line
    assert line.endswith(" left")


@pytest.mark.parametrize(("off", "main"), [(True, True), (False, False)])
def test_it_is_quiet_where_it_is_asked_to_be_and_in_other_processes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, off: bool, main: bool
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.01)
    state: Any = SimpleNamespace(is_world_process_zero=main, max_steps=100, global_step=10, epoch=1.0)
    bar = TrainingBar()
    bar.on_train_begin(SimpleNamespace(disable_tqdm=off), state, None)
    bar.on_step_end(None, state, None)
    time.sleep(0.05)
    bar.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("method", [sft, seq2seq])
def test_libraries_that_are_kept_quiet_do_not_hide_it(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        transformers.training_args.logger, "getEffectiveLevel", lambda: 40
    )  # as `rectune train` keeps it

    def quiet(given: dict[str, Any]) -> Any:
        return method.Config(**method.config_defaults(given, cpu=True, seed=0)).disable_tqdm

    assert quiet({}) is False
    assert quiet({"disable_tqdm": True}) is True
