"""A named base with weights drawn anew, the control for what its pre-training is worth; and which weights a figure was measured with."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rectune.bundle.recommender import Recommender
from rectune.cli import main
from rectune.model.load import build_base, load_base
from rectune.model.settings import ModelSettings
from rectune.model.weights import weights_of
from tests.model.test_model import INDEX, settings_of
from tests.runs import train

LORA = {"dtype": "float32", "use_peft": True, "lora_r": 4, "lora_target_modules": ["all-linear"]}


def weights(settings: ModelSettings, folder: Path, seed: int) -> dict[str, torch.Tensor]:
    folder.mkdir()
    build_base(settings, INDEX, [], folder, seed=seed)
    return dict(load_base(settings, folder, INDEX, seed=seed).state_dict())


def test_weights_are_the_seeds_and_not_the_checkpoints(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    named = settings_of(checkpoints["untied"])
    drawn = replace(named, random_weights=True)
    pretrained = weights(named, tmp_path / "named", 0)
    first, again, other = (
        weights(drawn, tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )  # fmt: skip
    assert {name: w.shape for name, w in first.items()} == {name: w.shape for name, w in pretrained.items()}
    assert all(w.dtype == torch.bfloat16 for w in first.values())
    matrices = [name for name, w in first.items() if w.dim() > 1]
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in matrices:
        assert not torch.equal(first[name], other[name])
        assert not torch.equal(first[name], pretrained[name])


def asked(base: Path, place: Path, **model: Any) -> list[str]:
    said = {"from_scratch": None, "model_name_or_path": str(base), **LORA, **model}
    return ["--model", json.dumps(said), "--output_dir", str(place)]


def test_a_run_needs_no_weights_and_says_so(
    quick_recipe: Path, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(checkpoints["tied"], bare, ignore=shutil.ignore_patterns("*.safetensors"))
    train(quick_recipe, *asked(bare, tmp_path / "drawn", random_weights=True))
    train(quick_recipe, *asked(checkpoints["tied"], tmp_path / "named"))
    drawn, named = (json.loads((tmp_path / run / "report.json").read_text()) for run in ("drawn", "named"))
    assert drawn["environment"]["base"] == {"name": "bare", "random": True}
    file = checkpoints["tied"] / "model.safetensors"
    assert named["environment"]["base"] == {
        "name": "tied", "sha256": {"model.safetensors": hashlib.sha256(file.read_bytes()).hexdigest()},
    }  # fmt: skip
    assert drawn["environment"]["fingerprints"]["base"] != named["environment"]["fingerprints"]["base"]
    assert main(["export", str(tmp_path / "drawn")]) == 0
    bundle = tmp_path / "drawn" / "export"
    assert json.loads((bundle / "rectune.json").read_text())["base"]["from_scratch"] == {"architecture_of": "bare"}
    history = ["i1", "i2"]
    lists = [
        [found.item_id for found in Recommender.from_pretrained(place).recommend(history, k=3)]
        for place in (tmp_path / "drawn", bundle)
    ]
    assert lists[0] == lists[1]
    assert len(lists[0]) == 3
    capsys.readouterr()
    assert main(["export", str(tmp_path / "drawn"), "--adapter-only", "--to", str(tmp_path / "alone")]) == 1
    assert "which is not on the Hub" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["--model.random_weights", "true"], "a model `from_scratch` has random weights anyway. Leave the key out."),
        (["--model.random_weights", "maybe"], "got 'maybe'; use true or false."),
    ],
)
def test_what_it_cannot_mean(
    keys: list[str], told: str, quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(quick_recipe), *keys]) == 1
    error = capsys.readouterr().err
    assert "model.random_weights" in error
    assert told in error
    assert not (tmp_path / "run").exists()


def test_the_hash_follows_the_file(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    base = shutil.copytree(checkpoints["tied"], tmp_path / "base")
    before = weights_of(settings_of(base))
    with (base / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    after = weights_of(settings_of(base))
    assert before is not None
    assert after is not None
    assert before["sha256"] != after["sha256"]
    assert weights_of(replace(settings_of(base), library=replace(settings_of(base).library, model_name_or_path="a/b"))) == {
        "name": "a/b", "commit": None,
    }  # fmt: skip
