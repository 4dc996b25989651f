"""Several processes train what one trains at the same global batch, and none goes on from a training of another number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.exports import LORA
from tests.runs import results, tuned, with_processes

QLORA = {**LORA, "dtype": "bfloat16", "load_in_4bit": True}
KINDS: dict[str, dict[str, Any]] = {
    "whole weights": {},
    "LoRA and new tokens": {"model": LORA},
    "QLoRA and new tokens": {"model": QLORA},
    "trees": {"examples": "tree"},
    "by length": {"stage": {"train_sampling_strategy": "group_by_length"}},
    "accumulated": {"stage": {"gradient_accumulation_steps": 2}},
    "by tokens": {"stage": {"batch_tokens": 200}},
}


def recipe(place: Path, base: Path, kind: str, *, processes: int) -> Path:
    """A small log, a base of random weights, six steps of eight examples however many processes there are."""
    wanted = KINDS[kind]
    lines = ["user,item,time"]
    for user in range(30):
        lines += [f"u{user},i{(user * 3 + step * step) % 20},{step}" for step in range(4 + user % 5)]
    (place / "log.csv").write_text("\n".join(lines) + "\n")
    stage = {
        "call": "sft", "max_steps": 6, "max_length": 64, "learning_rate": 0.01, "logging_steps": 1, **wanted.get("stage", {}),
    }  # fmt: skip
    if "batch_tokens" in stage:
        stage["gradient_accumulation_steps"] = 2 // processes
    else:
        stage["per_device_train_batch_size"] = 8 // processes // stage.get("gradient_accumulation_steps", 1)
    settings = {
        "data": {"call": "table", "path": str(place / "log.csv"), "user": "user", "item": "item", "time": "time"},
        "split": {"call": "leave_one_out"}, "index": {"call": "atomic"},
        "tasks": [{"call": "next_item", "template": "next-item.jinja", "examples": wanted.get("examples", "targets")}],
        "model": {"model_name_or_path": str(base), "prompt_form": "plain", **wanted.get("model", {})},
        "stages": [stage], "rank": {"template": "next-item.jinja", "beams": 5, "k": 5},
        "eval": {"call": "ranking", "k": [5], "shuffled_rows": 0}, "output_dir": str(place / f"{kind}, {processes}"),
    }  # fmt: skip
    file = place / f"{kind}, {processes}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def cut(place: Path, base: Path, kind: str, name: str, **more: Any) -> Path:
    """The recipe for two processes under another name, with evaluations, checkpoints and the best of them chosen."""
    settings = yaml.safe_load(recipe(place, base, kind, processes=2).read_text())
    settings["stages"][0] |= {
        "eval_strategy": "steps", "eval_steps": 2, "ranked_rows": 9, "save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss", **more,
    }  # fmt: skip
    settings["output_dir"] = str(place / name)
    (place / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    return place / f"{name}.yaml"


def weights(run: Path) -> bytes:
    (file,) = run.glob("stages/train0-*/model/*model.safetensors")
    return file.read_bytes()


@pytest.mark.heavy
def test_weights_in_pieces_have_the_losses_of_one_process_and_are_gone_on_with(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    # FSDP2 over gloo. What each process holds is a half of every matrix, an adapter's and the rows of new tokens included.
    cases = [("whole weights", "tied"), ("LoRA and new tokens", "tied"), ("LoRA and new tokens", "untied")]
    asked = [
        cut(tmp_path, checkpoints[base], kind, f"{kind}, {base}, {end}")
        for kind, base in cases
        for end in ("whole", "stopped")
        if (base, end) != ("untied", "stopped")
    ]
    with_processes(2, "tests.fsdp", *map(str, asked))
    for kind, base in cases:
        alone = recipe(tmp_path, checkpoints[base], kind, processes=1)
        tuned(alone, str(tmp_path / f"{kind}, {base}, 1"))
        whole, stopped = (tmp_path / f"{kind}, {base}, {end}" for end in ("whole", "stopped"))
        one = losses(tmp_path / f"{kind}, {base}, 1")
        assert one[-1] < one[0]
        assert losses(whole) == pytest.approx(one, rel=1e-4), (kind, base)
        assert base == "untied" or weights(stopped) == weights(whole), (kind, base)
        (audit,) = whole.glob("stages/train0-*/audit.json")
        assert json.loads(audit.read_text())["gradient_in"] > 0
        assert len(losses(whole, key="eval_ndcg@10")) == 3
    assert results(whole)["protocols"]


def losses(run: Path, stage: int = 0, key: str = "loss") -> list[float]:
    (log,) = run.glob(f"stages/train{stage}-*/log_history.json")
    return [entry[key] for entry in json.loads(log.read_text()) if key in entry]


@pytest.mark.heavy
def test_two_processes_have_the_losses_of_one_at_the_same_global_batch(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    both = [recipe(tmp_path, checkpoints["tied"], kind, processes=2) for kind in KINDS]
    with_processes(2, "tests.several", *map(str, both))
    for kind in KINDS:
        tuned(recipe(tmp_path, checkpoints["tied"], kind, processes=1))
        one, two = losses(tmp_path / f"{kind}, 1"), losses(tmp_path / f"{kind}, 2")
        assert len(one) == 6
        assert one[-1] < one[0]
        assert two == pytest.approx(one, rel=2e-3 if kind.startswith("Q") else 1e-4), kind


GROUPS = {"call": "grpo", "rewards": ["rank"], "num_generations": 4}
SECOND: dict[str, dict[str, Any]] = {
    "rejected": {"call": "s_dpo", "negatives": "ranked", "batch": 8},
    "beams": {**GROUPS, "hints": 1, "beta": 0.1, "batch": 16},
    "drawn": {**GROUPS, "rollouts": "without_replacement", "hints": 1, "num_iterations": 2, "gradient_accumulation_steps": 2, "batch": 16},
}  # fmt: skip


def two_stages(place: Path, base: Path, second: str, *, processes: int) -> Path:
    """The recipe with a stage after the first that reads a reference, the model's own lists or what it draws."""
    settings = yaml.safe_load(recipe(place, base, "LoRA and new tokens", processes=processes).read_text())
    more = dict(SECOND[second])
    settings["stages"][0]["max_steps"] = 2
    settings["stages"].append(
        {"max_steps": 4, "max_length": 64, "learning_rate": 0.005, "logging_steps": 1, "per_device_train_batch_size": more.pop("batch") // processes, **more}
    )  # fmt: skip
    settings["tasks"][0].pop("examples")
    settings["output_dir"] = str(place / f"{second}, {processes}")
    file = place / f"{second}, {processes}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.mark.heavy
def test_two_processes_tune_by_preferences_and_rewards_as_one_does(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    # What is rejected and drawn is that of the example, on whatever process it is.
    with_processes(
        2, "tests.several", *(str(two_stages(tmp_path, checkpoints["tied"], second, processes=2)) for second in SECOND)
    )
    for second in SECOND:
        tuned(two_stages(tmp_path, checkpoints["tied"], second, processes=1))
        for key in ("loss", "grad_norm", *(["reward"] if second != "rejected" else [])):
            one, two = (losses(tmp_path / f"{second}, {processes}", 1, key) for processes in (1, 2))
            assert len(one) >= 2, (second, key)
            assert two == pytest.approx(one, rel=2e-3, abs=1e-5), (second, key)
        assert any(value > 0.01 for value in losses(tmp_path / f"{second}, 1", 1, "grad_norm")), second
