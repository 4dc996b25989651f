"""Weights in pieces: what is refused, in one line each. That they are trained as one process does is in tests/run/test_processes.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rectune.methods.sft import Config
from rectune.methods.sharding import check_cut, refuse_pieces, refuse_sharding
from tests.conftest import QUICK
from tests.test_cli import fails

STAGE = "  - {call: METHOD, tasks: [{call: next_item, template: next-item-names.jinja}], max_steps: 1, max_length: 128KEYS}\n"


@pytest.mark.parametrize(
    ("method", "keys", "variable", "message"),
    [
        (
            "dpo",
            "",
            "true",
            "`stages.1` (own.yaml:25): FSDP and DeepSpeed cut weights into pieces, and preference tuning keeps",
        ),
        ("grpo", ", num_generations: 4, per_device_train_batch_size: 8", "true", "and the search reads them whole"),
        ("sft", ", fsdp: full_shard", "", "this one says `fsdp` where the first says `nothing`"),
    ],
)
def test_a_later_stage_is_refused_before_the_first_is_trained(
    method: str,
    keys: str,
    variable: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = QUICK.replace("rank: {", STAGE.replace("METHOD", method).replace("KEYS", keys) + "rank: {")
    (tmp_path / "own.yaml").write_text(text + f"output_dir: {tmp_path / 'run'}\n")
    if variable:
        monkeypatch.setenv("ACCELERATE_USE_FSDP", variable)
    assert message in fails(capsys, "train", str(tmp_path / "own.yaml"))
    assert not (tmp_path / "run").exists()


def task(*, adapter: bool = False, new_tokens: tuple[int, ...] = (), in_4bit: bool = False) -> Any:
    return SimpleNamespace(adapter=adapter, new_tokens=list(new_tokens), model=SimpleNamespace(is_quantized=in_4bit))


def config(**keys: Any) -> Config:
    return Config(output_dir="x", use_cpu=True, bf16=False, **keys)


@pytest.mark.parametrize(
    ("variable", "asked", "keys", "message"),
    [
        ("DEEPSPEED", {"new_tokens": (5,)}, {}, "DeepSpeed is only for full fine-tuning without new tokens"),
        ("DEEPSPEED", {"adapter": True}, {}, "DeepSpeed is only for full fine-tuning without new tokens"),
        ("FSDP", {"in_4bit": True}, {}, "not shown to cut weights in 4 or 8 bit"),
        ("FSDP", {"adapter": True}, {"target_head": False}, "`target_head: false`: TRL's head reads"),
    ],
)
def test_what_is_not_shown_is_refused(
    variable: str, asked: dict[str, Any], keys: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(**keys)  # before: the library asks its own of what it is told
    refuse_sharding(made, task(**asked))
    monkeypatch.setenv(f"ACCELERATE_USE_{variable}", "true")
    with pytest.raises(ValueError, match=message):
        refuse_sharding(made, task(**asked))
    with pytest.raises(ValueError, match="cut weights into pieces, and it is so"):
        refuse_pieces(made, "it is so")


@pytest.mark.parametrize("asked", [{}, {"new_tokens": (5,)}, {"adapter": True}])
def test_fsdp_takes_adapters_and_new_tokens(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = config()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "TRUE")
    refuse_sharding(made, task(**asked))


@pytest.mark.parametrize(
    ("plugin", "adapter", "message"),
    [
        (None, False, "every process would train a copy"),
        ({"fsdp_version": 1}, False, "say `fsdp_version: 2`"),
        ({"state_dict_type": "StateDictType.SHARDED_STATE_DICT"}, False, "say `fsdp_state_dict_type: FULL_STATE_DICT`"),
        ({"cpu_ram_efficient_loading": True}, True, "say `fsdp_cpu_ram_efficient_loading: false`"),
        ({"cpu_ram_efficient_loading": True}, False, None),
        ({}, True, None),
    ],
)
def test_a_launch_that_would_not_cut_or_not_write_whole_is_refused(
    plugin: dict[str, Any] | None, adapter: bool, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"fsdp_version": 2, "state_dict_type": "StateDictType.FULL_STATE_DICT", "cpu_ram_efficient_loading": False}
    trainer = SimpleNamespace(
        is_fsdp_enabled=plugin is not None, model=SimpleNamespace(**({"peft_config": {}} if adapter else {})),
        accelerator=SimpleNamespace(state=SimpleNamespace(fsdp_plugin=SimpleNamespace(**{**good, **(plugin or {})}))),
    )  # fmt: skip
    made = config()
    check_cut(trainer, made)  # nobody asked for it
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    if message is None:
        check_cut(trainer, made)
        return
    with pytest.raises(ValueError, match=message):
        check_cut(trainer, made)
