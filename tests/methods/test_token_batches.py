"""Batches by a number of tokens: every example once, no batch beyond the budget, as many batches in each epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rectune.cli import main
from rectune.log.split import Ints
from rectune.methods.token_batches import ROWS, TokenBatches, Unwrapped
from rectune.methods.token_tree import packed, trees_of
from rectune.model.new_tokens import train_tokenizer
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import load_template
from rectune.tasks.examples import Mixture, TaskSpec
from rectune.tasks.rows import TaskRows
from tests.runs import forked
from tests.test_cli import fails

WORDS = """{{% set wordings = {wordings} %}}
{{% macro prompt(wording, item, times) %}}{{% for i in range(times + 3 * wording) %}}{{{{ item }}}} {{% endfor %}}{{% endmacro %}}
{{% macro completion(wording, item) %}}{{{{ item }}}}{{% endmacro %}}
"""
BUDGET = 120


def mixture(place: Path, *, wordings: int = 1, share: float = 1.0, group: Ints | None = None, seed: int = 0) -> Mixture:
    """300 rows of 1 to 20 words."""
    (place / "words.jinja").write_text(WORDS.format(wordings=wordings))
    rows = TaskRows(
        np.arange(300), lambda i: {"item": "abcdefgh"[(i if group is None else int(group[i])) % 8], "times": 1 + i * i % 20}, "text", np.arange(300), group=group
    )  # fmt: skip
    spec = TaskSpec("words", lambda part: rows, load_template(place / "words.jinja"), share)
    encoder = Encoder(train_tokenizer(["a b"], 300), ())
    return Mixture([spec], "train", encoder, seed=seed, max_length=None, loss_on_all=False)


@pytest.mark.parametrize(("wordings", "share"), [(1, 1.0), (4, 1.0), (4, 0.5)])
def test_every_example_is_in_one_batch_and_none_is_beyond_the_budget(
    wordings: int, share: float, tmp_path: Path
) -> None:
    examples = mixture(tmp_path, wordings=wordings, share=share)
    batches = TokenBatches(examples, BUDGET, trees=False)
    for epoch in range(5):
        plan, lengths = batches.plan(epoch), examples.lengths(epoch)
        assert sorted(np.concatenate(plan).tolist()) == list(range(len(examples)))
        assert len(plan) == len(batches)
        padded = [int(lengths[some].max()) * len(some) for some in plan]
        assert max(padded) <= BUDGET * (1 if not epoch or wordings == 1 else 1.35)  # other wordings: a little more
        assert sum(padded) < 1.15 * lengths.sum()
        assert np.mean(padded) > 0.75 * BUDGET


def test_an_epoch_is_drawn_by_seed_and_number_alone(tmp_path: Path) -> None:
    def plan(seed: int, epoch: int) -> list[list[int]]:
        made = TokenBatches(mixture(tmp_path, wordings=3, seed=seed), BUDGET, trees=False)
        return [some.tolist() for some in made.plan(epoch)]

    assert plan(0, 2) == plan(0, 2)
    assert plan(0, 2) != plan(1, 2)
    one, two = ({tuple(some) for some in plan(0, epoch)} for epoch in (0, 1))
    assert len(one & two) < len(one) / 4  # not the same batches in another order


def test_trees_stay_whole(tmp_path: Path) -> None:
    group = np.arange(300) // 5
    examples = mixture(tmp_path, group=group)
    plan = TokenBatches(examples, BUDGET, trees=True).plan(0)
    for some in plan:
        rows = examples.features(some.tolist(), 0)
        shared = packed(
            [
                tree
                for number in np.unique(group[some])
                for _, tree in trees_of(
                    [(rows[i]["input_ids"], rows[i]["labels"]) for i in np.flatnonzero(group[some] == number)]
                )
            ]
        )
        assert len(shared) * max(map(len, shared)) <= BUDGET
    together = [len(np.unique(group[some])) / len(some) for some in plan]
    assert np.mean(together) < 0.6


def test_an_example_longer_than_a_batch_is_refused(tmp_path: Path) -> None:
    longest = int(mixture(tmp_path).lengths(0).max())
    assert len(TokenBatches(mixture(tmp_path), longest, trees=False))
    with pytest.raises(ValueError, match=rf"`batch_tokens` is {longest - 1}, and an example has {longest} tokens"):
        TokenBatches(mixture(tmp_path), longest - 1, trees=False)


def test_the_elements_of_the_data_set_are_batches(tmp_path: Path) -> None:
    examples = mixture(tmp_path, wordings=2)
    batches = TokenBatches(examples, BUDGET, trees=False)
    data = batches.data(examples.features)
    examples.epoch = 3
    assert len(data) == len(batches)
    assert data[4][ROWS] == examples.features(batches.plan(3)[4].tolist(), 3)
    whole = Unwrapped(lambda rows: {"rows": rows})
    assert whole([data[4], data[5]])["rows"] == data[4][ROWS] + data[5][ROWS]
    assert whole(examples.features([1, 2], 0))["rows"] == examples.features([1, 2], 0)  # of an evaluation


def recipe(place: Path, base: Path, **keys: Any) -> Path:
    lines = ["user,item,time"]
    for user in range(30):
        lines += [f"u{user},i{(user * 3 + step * step) % 20},{step}" for step in range(4 + user % 5)]
    (place / "log.csv").write_text("\n".join(lines) + "\n")
    stage = {
        "call": "sft", "max_length": 64, "learning_rate": 0.01, "logging_steps": 1, "num_train_epochs": 2, "batch_tokens": 256,
        "eval_strategy": "epoch", "save_strategy": "epoch", **keys.pop("stage", {}),
    }  # fmt: skip
    settings = {
        "data": {"call": "table", "path": str(place / "log.csv"), "user": "user", "item": "item", "time": "time"},
        "split": {"call": "leave_one_out"}, "index": {"call": "atomic"},
        "tasks": [{"call": "next_item", "template": "next-item-names.jinja", **keys.pop("task", {})}],
        "model": {"model_name_or_path": str(base), "prompt_form": "plain"},
        "stages": [stage], "rank": {"template": "next-item-names.jinja", "beams": 5, "k": 5},
        "eval": {"call": "ranking", "k": [5], "shuffled_rows": 0}, "output_dir": str(place / "run"), **keys,
    }  # fmt: skip
    (place / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return place / "recipe.yaml"


def trained(run: Path) -> tuple[list[float], list[int]]:
    (stage,) = (run / "stages").glob("train0-*")
    losses = [entry["loss"] for entry in json.loads((stage / "log_history.json").read_text()) if "loss" in entry]
    return losses, json.loads((stage / "measured.json").read_text())["largest_batch"]


@pytest.mark.parametrize("more", [{}, {"task": {"examples": "tree"}, "stage": {"num_train_epochs": 8}}, {"stage": {"packing": True, "num_train_epochs": 4}}], ids=["padded", "trees", "packed"])  # fmt: skip
def test_a_training_learns_and_keeps_to_the_budget(more: dict[str, Any], checkpoints: dict[str, Path], tmp_path: Path) -> None:  # fmt: skip
    assert main(["train", str(recipe(tmp_path, checkpoints["tied"], **more)), "--traceback"]) == 0
    losses, (rows, tokens) = trained(tmp_path / "run")
    assert 64 < rows * tokens <= 256
    assert losses[-1] < losses[0] - 0.2


def test_an_encoder_decoder_trains_by_tokens(tmp_path: Path) -> None:
    small = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    file = recipe(tmp_path, tmp_path, stage={"call": "seq2seq"}, model={"from_scratch": small})
    assert main(["train", str(file), "--traceback"]) == 0
    _, (rows, tokens) = trained(tmp_path / "run")
    assert 64 < rows * tokens <= 256


def test_a_killed_training_goes_on_to_the_same_bytes(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole, cut = (recipe(tmp_path / name, checkpoints["tied"]) for name in ("one", "two"))
    assert main(["train", str(whole)]) == 0
    code = (
        "import os, sys\nfrom rectune.methods import training\nold = training.WholeCheckpoints._save_checkpoint\n"
        "def kill(self, *args):\n    old(self, *args)\n    os._exit(9)\ntraining.WholeCheckpoints._save_checkpoint = kill\n"
        "from rectune.cli import main\nmain(sys.argv[1:])"
    )
    assert forked("-c", code, "train", str(cut)).returncode == 9
    assert main(["train", str(cut)]) == 0
    weights = [next((tmp_path / name / "run" / "stages").glob("train0-*/model/model.safetensors")) for name in ("one", "two")]  # fmt: skip
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_what_cannot_be_batched_so_is_one_line(checkpoints: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    file = str(recipe(tmp_path, checkpoints["tied"]))
    error = fails(capsys, "train", file, "--stages.0.per_device_train_batch_size", "8")
    assert "per_device_train_batch_size`: `batch_tokens` stands in for it; leave one of them out" in error
    error = fails(capsys, "train", file, "--stages.0.train_sampling_strategy", "group_by_length")
    assert "train_sampling_strategy`: `batch_tokens` stands in for it" in error
    assert "batch_tokens" in fails(capsys, "train", file, "--stages.0.batch_tokens", "0")
    unset = [f"--stages.0.{name}" for name in ("per_device_train_batch_size", "train_sampling_strategy")]
    assert (
        main(
            [
                "train",
                file,
                unset[0],
                "null",
                unset[1],
                "null",
                "--stages.0.max_steps",
                "1",
                "--stages.0.num_train_epochs",
                "1",
            ]
        )
        == 0
    )
    assert "`batch_tokens` is 3, and an example has" in fails(capsys, "train", file, "--stages.0.batch_tokens", "3")
    assert "batch_tokens" in fails(capsys, "train", file, "--stages.0.call", "dpo", "--stages.0.save_strategy", "no")
