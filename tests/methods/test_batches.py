"""Batches of like length, in every epoch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rectune.methods import sft
from rectune.methods.training import ByLength, WholeCheckpoints
from rectune.model.new_tokens import train_tokenizer
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import load_template
from rectune.tasks.examples import Example, Mixture, TaskSpec
from rectune.tasks.rows import TaskRows
from tests.runs import Stopped, stopping, train

WORDS = """{% set wordings = 2 %}
{% macro prompt(wording, item) %}{% if wording == 0 %}{{ item }}{% else %}{% for i in range(40) %}{{ item }} {% endfor %}{% endif %}{% endmacro %}
{% macro completion(wording, item) %}{{ item }}{% endmacro %}
"""


@pytest.fixture
def examples(tmp_path: Any) -> Mixture:
    """Rows with a short and a long wording, half of them drawn in each epoch."""
    (tmp_path / "words.jinja").write_text(WORDS)
    rows = TaskRows(np.arange(120), lambda i: {"item": "abcdefgh"[i % 8]}, "text", np.arange(120))
    spec = TaskSpec("words", lambda part: rows, load_template(tmp_path / "words.jinja"), 0.5)
    return Mixture(
        [spec], "train", Encoder(train_tokenizer(["a b"], 300), ()), seed=0, max_length=None, loss_on_all=True
    )


def lengths(examples: Mixture) -> list[int]:
    every: list[Example] = examples.examples(range(len(examples)), examples.epoch)
    return [len(example.prompt) + len(example.completion) for example in every]


def padded(order: list[int], examples: Mixture, size: int) -> float:
    """Tokens that batches of `size` in this order hold with padding, over those without."""
    every = lengths(examples)
    own = [every[p] for p in order]
    return sum(max(own[a : a + size]) * len(own[a : a + size]) for a in range(0, len(own), size)) / sum(own)


def test_batches_are_of_like_length_in_later_epochs_too(examples: Mixture) -> None:
    found = []
    for seed in range(4):  # one order of few batches may be 1.05 or 1.4
        torch.manual_seed(seed)
        examples.epoch = 0
        sampler = ByLength(examples, 4, seed=0)
        first = list(sampler)
        assert sorted(first) == list(range(len(examples)))
        own = padded(first, examples, 4)
        examples.epoch = 1
        found.append((own, padded(first, examples, 4), padded(list(sampler), examples, 4)))
    own, stale, later = np.mean(found, axis=0)
    assert own < 1.3
    assert stale > 1.7  # by the lengths of the epoch before
    assert later < 1.3


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone(examples: Mixture) -> None:
    examples.epoch = 3
    torch.manual_seed(5)
    whole = ByLength(examples, 4, seed=0)
    one = list(whole)
    torch.manual_seed(6)  # other things were drawn before, as where a training goes on in this epoch
    assert list(ByLength(examples, 4, seed=0)) == one
    examples.epoch = 4
    assert list(whole) != one
    examples.epoch = 3
    assert list(ByLength(examples, 4, seed=1)) != one


def test_trainers_take_it_where_the_recipe_groups_by_length(examples: Mixture) -> None:
    class Plain:
        def _get_train_sampler(self) -> str:
            return "the library's"

    class Trainer(WholeCheckpoints, Plain):
        def __init__(self, strategy: str) -> None:
            self.examples = examples
            self.args = SimpleNamespace(
                train_sampling_strategy=strategy,
                train_batch_size=4,
                gradient_accumulation_steps=2,
                world_size=3,
                seed=1,
                data_seed=None,
            )

    assert Trainer("random")._get_train_sampler() == "the library's"
    sampler = Trainer("group_by_length")._get_train_sampler()
    assert isinstance(sampler, ByLength)
    assert (sampler.batch_size, len(sampler)) == (24, len(examples))  # of all processes


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [("random", "ByGroup"), ("group_by_length", "ByGroup"), ("sequential", "str"), ("batch_rebalance", "str")],
)
def test_examples_of_a_group_stay_together_where_the_recipe_names_no_other_order(
    examples: Mixture, monkeypatch: pytest.MonkeyPatch, strategy: str, kind: str
) -> None:
    class Plain:
        def _get_train_sampler(self) -> str:
            return "the library's"

    class Trainer(WholeCheckpoints, Plain):
        args = SimpleNamespace(
            train_sampling_strategy=strategy,
            train_batch_size=4,
            gradient_accumulation_steps=2,
            world_size=1,
            seed=1,
            data_seed=2,
        )

    monkeypatch.setattr(Mixture, "grouped", True)
    trainer: Any = Trainer()
    trainer.examples = examples
    assert type(trainer._get_train_sampler()).__name__ == kind


@pytest.mark.parametrize(
    "order",
    [
        ["--stages.0.train_sampling_strategy", "random"],
        ["--stages.0.train_sampling_strategy", "group_by_length", "--stages.0.eval_on_start", "true"],
        ["--stages.0.batch_tokens", "400"],
        ["--tasks.0.examples", "tree"],
    ],
    ids=["random", "by length", "by tokens", "by tree"],
)
def test_killed_in_a_later_epoch_it_goes_on_in_the_same_order(
    order: list[str], quick_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 60 users: seven or eight batches are an epoch, and the eighth and the twelfth step leave checkpoints.
    def run(name: str) -> Path:
        return tmp_path / name

    more = [*order, "--stages.0.save_total_limit", "1"]
    if "--tasks.0.examples" in order:
        more += ["--stages.0.completion_only_loss", "true", "--stages.0.per_device_train_batch_size", "60"]
    if "--stages.0.batch_tokens" in order:
        more += ["--stages.0.per_device_train_batch_size", "null"]
    train(quick_recipe, *more, "--output_dir", str(run("whole")))
    with monkeypatch.context() as patched:
        patched.setattr(sft._Trainer, "training_step", stopping(sft._Trainer.training_step, 10))
        with pytest.raises(Stopped):
            train(quick_recipe, *more, "--output_dir", str(run("killed")))
    train(quick_recipe, *more, "--output_dir", str(run("killed")))
    weights, steps = (
        [next(run(name).glob(f"stages/train0-*/{file}")).read_bytes() for name in ("whole", "killed")]
        for file in ("model/model.safetensors", "log_history.json")
    )
    assert b'"epoch": 1.' in steps[0]
    assert weights[0] == weights[1]
