"""Every key of a training is listed: read by the library, by us, or refused with the reason; a new one in a new version fails here."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from trl import ModelConfig

from rectune.cli import main
from rectune.methods import dpo, grpo, s_dpo, seq2seq, sft
from rectune.methods.keys import OURS, PASSED, RANGES, REFUSED, TRACKERS, check_keys
from rectune.model.settings import OWN_KEYS, READ
from tests.test_cli import fails
from tests.test_docs import ROOT, keys_page


def fields_of(*kinds: type) -> set[str]:
    return {f.name for kind in kinds for f in dataclasses.fields(kind) if f.init}


def test_every_key_of_a_training_is_listed_once() -> None:
    passed = [key for keys in PASSED.values() for key in keys.split()]
    listed = [*OURS, *REFUSED, *passed]
    known = fields_of(sft.Config, seq2seq.Config, dpo.Config, s_dpo.Config, grpo.Config)
    assert sorted(listed) == sorted(set(listed))
    assert known - set(listed) == set(), "keys that are new: are they passed through, ours, or refused?"
    assert set(listed) - known == set(), "keys that are gone"
    assert set(RANGES) <= known


def test_every_key_of_the_model_is_listed_once() -> None:
    listed = [*OWN_KEYS, *READ]
    assert sorted(listed) == sorted(set(listed))
    assert set(READ) == fields_of(ModelConfig)


def test_the_page_of_the_keys_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "keys.md").read_text() == keys_page()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--stages.0.save_only_model", "true"], "`stages.0.save_only_model`: got True, which is refused: a checkpoint without optimiser"),
        (["--stages.0.eval_packing", "true"], "`stages.0.eval_packing`: got True, which is refused: `packing` is for evaluations, too"),
        (["--stages.0.push_to_hub", "true"], "`stages.0.push_to_hub`: got True, which is refused: the Trainer sends nothing to the Hub"),
        (["--stages.0.report_to", "swanlab"], "`stages.0.report_to`: `swanlab` needs the package `swanlab`, which is not installed"),
        (["--stages.0.report_to", "[none, dvclive]"], "`dvclive` needs the package `dvclive`"),
        (["--stages.0.report_to", "tensorbord"], "there is no tracker 'tensorbord'. Did you mean `tensorboard`"),
        (["--stages.0.optim", "schedule_free_adamw"], "`stages.0.optim`: `schedule_free_adamw` needs the package `schedulefree`"),
        (["--stages.0.use_liger_kernel", "true"], "`stages.0.use_liger_kernel`: it needs the package `liger_kernel`"),
        (["--stages.0.output_dir", "elsewhere"], "checkpoints lie in the run folder"),
        (["--stages.0.learning_rate", "-0.5"], "`stages.0.learning_rate`: got -0.5, but it must be a number from 0 on and below 100"),
        (["--stages.0.learning_rate", ".nan"], "got nan (float), but it must be a finite number"),
        (["--stages.0.ranked_rows", "-1"], "`stages.0.ranked_rows`: got -1, but it must be a number from 1 on"),
        (["--stages.0.max_steps", "0"], "`stages.0.max_steps`: got 0, but it must be -1 or a number from 1 on"),
        (["--stages.0.adam_beta1", "1"], "from 0 on and below 1"),
        (["--stages.0.eval_strategy", "7"], "got 7 (int), but it must be one of no, steps, epoch"),
        (["--model.lora_r", "0"], "`model.lora_r`: got 0, but it must be a number from 1 on"),
    ],
)  # fmt: skip
def test_what_a_training_cannot_do_is_refused_before_it(
    quick_recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    message: str,
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in UNINSTALLED else there(name))
    assert message in fails(capsys, "train", str(quick_recipe), *overrides)
    assert not (tmp_path / "run").exists()  # nothing was built


UNINSTALLED = {*TRACKERS.values(), "schedulefree", "liger_kernel"}


def test_a_default_that_is_said_is_no_offence() -> None:
    section = {
        "packing_strategy": "bfd",
        "save_only_model": False,
        "hub_strategy": "every_save",
        "report_to": "none",
        "output_dir": None,
    }
    check_keys(sft.Config, section, str)


def test_a_method_of_another_kind_has_keys_of_its_own() -> None:
    @dataclasses.dataclass
    class Config:
        eval_packing: bool = False

    check_keys(Config, {"eval_packing": True}, str)


def test_a_tracker_that_is_installed_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: asked.append(name) or "there")
    check_keys(sft.Config, {"report_to": ["wandb", "all"]}, str)
    assert asked == ["wandb"]


def test_the_trackers_are_those_of_transformers() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert set(TRACKERS) | {"kubeflow"} == set(INTEGRATION_TO_CALLBACK)


def test_show_still_prints_what_is_refused(quick_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(quick_recipe), "--stages.0.eval_packing", "true"]) == 0
    assert "eval_packing: true" in capsys.readouterr().out


@pytest.mark.parametrize("method", [sft, seq2seq, dpo, s_dpo, grpo])
def test_the_older_name_of_checkpointing_is_heard(method: Any) -> None:
    """The library reads it only where the newer name is not set, which rectune sets."""
    for given, expected in (
        ({}, (False, None)),
        (
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
            (True, {"use_reentrant": False}),
        ),
        ({"gradient_checkpointing": True, "activation_checkpointing": False}, (False, None)),
    ):
        config = method.Config(**method.config_defaults(dict(given), cpu=True, seed=0))
        assert (config.activation_checkpointing, config.activation_checkpointing_kwargs) == expected
