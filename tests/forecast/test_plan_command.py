"""`rectune plan`: what it says, and its exit codes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from rectune.cli import main
from rectune.commands import DOES_NOT_FIT
from rectune.forecast.advice import change_for
from rectune.forecast.forecast import forecast
from rectune.forecast.judging import Judging
from rectune.forecast.text import _judging
from rectune.planning.cards import GB, Card
from rectune.recipe.load import load_recipe
from rectune.runtime.room import Room


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["plan", *words]) == code
    out, err = capsys.readouterr()
    return out if code != 1 else err


def test_a_recipe_is_planned_before_anything_is_there(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, str(quick_recipe))
    for needed in (
        "planned for the CPU of this machine",
        "100.00%",
        "optimiser",
        "together",
        "disk:",
        "not known: steps",
    ):
        assert needed in text
    assert not (tmp_path / "run").exists()
    assert "fits into 24 GB; the largest per_device_train_batch_size" in said(
        capsys, str(quick_recipe), "--gpu", "24GB"
    )


def test_what_baselines_and_figures_take_is_counted(quick_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "baselines, prior and figures: at most {} GB of memory beside the model (`eval.memory`)"
    assert line.format("2.00") in said(capsys, str(quick_recipe))
    assert line.format("0.50") in said(capsys, str(quick_recipe), "--eval.memory", "0.5")
    message = "`eval.memory` is in GB and must be a number above 0, got 0"
    assert message in said(capsys, str(quick_recipe), "--eval.memory", "0", code=1)
    for seen, room, told in ((12_101, 2, "1.09 GB in memory"), (12_101, 0.5, "1.09 GB in a file")):
        assert _judging(Judging(Room(room), seen, seen**2 * 8)).endswith(f"EASE's weights of 12,101 items take {told}")


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_parameters_are_those_of_the_loaded_model(
    kind: str, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    real = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(checkpoints[kind]).parameters())
    whole = ["--model.use_peft", "false", "--model.load_in_4bit", "false", "--model.dtype", "float32"]
    place = ["--model.model_name_or_path", str(checkpoints[kind]), "--output_dir", str(tmp_path / "run")]
    assert f" {real:,} parameters" in said(capsys, "tallrec-ml-100k", *whole, *place)


def test_what_does_not_fit_is_told_apart_and_the_named_change_fits(
    quick_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    big = ["--stages.0.per_device_train_batch_size", "64", "--stages.0.max_length", "200"]
    text = said(capsys, str(quick_recipe), "--gpu", "0.75GB", *big, code=DOES_NOT_FIT)
    assert "DOES NOT FIT into 0.75 GB" in text
    change = re.search(r"change: (.*)", text)
    assert change is not None
    words = shlex.split(change[1])
    batch, times = int(words[1]), int(words[3])
    assert words[0::2] == ["--stages.0.per_device_train_batch_size", "--stages.0.gradient_accumulation_steps"]
    assert batch * times == 64
    assert "fits into 0.75 GB" in said(capsys, str(quick_recipe), "--gpu", "0.75GB", *big, *words)


def test_a_batch_of_tokens_is_planned_and_what_fits_is_told_in_tokens(
    quick_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_tokens = ["--stages.0", "{call: sft, completion_only_loss: false, batch_tokens: 12800, max_length: 200}"]
    by_rows = [
        "--stages.0",
        "{call: sft, completion_only_loss: false, per_device_train_batch_size: 64, max_length: 200}",
    ]
    text, same = (
        said(capsys, str(quick_recipe), "--gpu", "0.75GB", *big, code=DOES_NOT_FIT) for big in (by_tokens, by_rows)
    )
    assert re.search(r"together +[\d.]+ GB", text)[0] == re.search(r"together +[\d.]+ GB", same)[0]  # type: ignore[index]
    assert "the largest batch_tokens that fits: " in text
    change = re.search(r"change: (.*)", text)
    assert change is not None
    words = shlex.split(change[1])
    assert words[0::2] == ["--stages.0.batch_tokens", "--stages.0.gradient_accumulation_steps"]
    assert int(words[1]) * int(words[3]) == 12800
    assert "fits into 0.75 GB" in said(capsys, str(quick_recipe), "--gpu", "0.75GB", *by_tokens, *words)


def test_the_named_change_counts_what_accumulating_takes(quick_recipe: Path) -> None:
    big = ("stages.0.per_device_train_batch_size", "64"), ("stages.0.max_length", "200")
    recipe = load_recipe(quick_recipe, big)
    roomy = forecast(recipe, Card("roomy", 24 * GB)).stages[0]
    tight = Card("tight", roomy.plan.need(32, roomy.length).total)  # 32 rows fit as long as no gradients wait
    stage = forecast(recipe, tight).stages[0]
    change = change_for(recipe, tight, stage)
    assert stage.fits_rows == 32
    assert change is not None
    assert change.total <= tight.memory
    assert change.overrides.split()[1] != "32"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu", "24"], "error: `--gpu 24` has no unit. Type `--gpu 24GB`"),
        (["--gpu", "RTX 4091"], "Did you mean RTX 4090"),
        (["--model.from_scratch.model_type", "qwen33"], "unknown model type 'qwen33'"),
        (["--stages.0.optim", "rmsprop"], "what `rmsprop` keeps in memory is not known"),
    ],
)
def test_bad_input_is_one_line(
    quick_recipe: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    err = said(capsys, str(quick_recipe), *words, code=1)
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_adapters_and_quantised_bases_are_planned(
    quick_recipe: Path, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for which in ("tied", "untied"):
        model = {"model_name_or_path": str(checkpoints[which]), "from_scratch": None, "use_peft": True, "lora_r": 4}
        shares = []
        for more in ({}, {"load_in_4bit": True, "use_bnb_nested_quant": True}, {"load_in_8bit": True}):
            text = said(capsys, str(quick_recipe), "--gpu", "L4", "--model", json.dumps({**model, **more}))
            assert re.search(r"adapter +0\.00 GB", text)
            shares.append(re.search(r"\((\d+\.\d+)%\)", text)[1])  # type: ignore[index]
        assert len(set(shares)) == 1  # packing changes no count
        assert 0 < float(shares[0]) < 50


def test_a_built_run_is_planned_with_its_own_examples(quick_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rectune.run.run import open_recipe

    line = open_recipe(load_recipe(quick_recipe))
    with line.folder.lock():
        _ = line.place("base")
    text = said(
        capsys, str(quick_recipe), "--gpu", "RTX 4090", "--stages.0.max_steps", "-1", "--stages.0.num_train_epochs", "2"
    )
    # 60 users, one window each, 8 a step: 8 steps an epoch
    assert "16 steps, about" in text
    assert "minutes at 40 to 20 % of the 165.2 TFLOP/s" in text
    assert "not known" not in text


@pytest.mark.parametrize(("complete", "promised"), [("false", 24), ("true", 26)])
def test_complete_codes_promise_a_begin_and_an_end(complete: str, promised: int) -> None:
    from rectune.forecast.known import _promised
    from rectune.run.run import open_recipe

    keys = [("index.levels", "3"), ("index.codes", "8"), ("index.complete", complete)]
    assert _promised(open_recipe(load_recipe("quickstart", keys)).asked).new_tokens == promised
