"""Memory that runs out: one line that says what to change, and the training goes on after the change."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rectune.cli import main
from rectune.methods.out_of_memory import advice, for_fingerprint, largest_divisor, ran_out


def config(batch: int, steps: int, *, checkpointing: bool = False, max_length: int | None = 512) -> Any:
    return SimpleNamespace(
        per_device_train_batch_size=batch, gradient_accumulation_steps=steps, activation_checkpointing=checkpointing, max_length=max_length
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        (config(8, 2), "--stages.1.per_device_train_batch_size 4 --stages.1.gradient_accumulation_steps 4"),
        (config(9, 1), "--stages.1.per_device_train_batch_size 3 --stages.1.gradient_accumulation_steps 3"),
        (config(1, 8), "--stages.1.activation_checkpointing true"),
        (config(1, 8, checkpointing=True), "--stages.1.max_length 256"),
    ],
)
def test_the_advice_keeps_the_global_batch(given: Any, needed: str) -> None:
    assert needed in advice(1, given)


def test_divisors() -> None:
    assert [largest_divisor(12, most) for most in (12, 11, 5, 1, 0)] == [12, 6, 4, 1, 1]


def test_only_memory_counts_as_memory() -> None:
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert ran_out(MemoryError())
    assert ran_out(
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")
    )
    assert not ran_out(RuntimeError("shapes do not match"))


def test_fingerprints_hold_the_global_batch_and_nothing_that_only_saves_memory() -> None:
    one = for_fingerprint({"per_device_train_batch_size": 8, "learning_rate": 1e-3}, config(8, 1))
    two = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "activation_checkpointing": True}
    assert one == for_fingerprint({**two, "learning_rate": 1e-3}, config(4, 2, checkpointing=True))
    assert one != for_fingerprint({"per_device_train_batch_size": 4, "learning_rate": 1e-3}, config(4, 1))
    assert one != for_fingerprint({"per_device_train_batch_size": 8, "learning_rate": 2e-3}, config(8, 1))
    own = SimpleNamespace(rounds=3)  # a method of one's own without these keys
    assert for_fingerprint({"rounds": 3}, own) == {"rounds": 3}


class Memory:
    """Runs out at the n-th micro-batch; counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from transformers import Trainer

        whole, self.calls, self.fails_at = Trainer.training_step, 0, 0

        def step(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return whole(trainer, *args, **kwargs)

        monkeypatch.setattr(Trainer, "training_step", step)


@pytest.mark.heavy
@pytest.mark.parametrize(("fails_at", "left"), [(7, 15), (3, 23)])
def test_a_training_that_ran_out_goes_on_from_its_checkpoint_after_the_change(
    quick_recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fails_at: int,
    left: int,
) -> None:
    """Twelve steps, a checkpoint after each fourth: at step 7 four are safe, at step 3 none. An epoch of 60 examples is 8 steps, and
    after the change 15 micro-batches of 4, and twelve steps 15 + 8; the first four are 8 of them."""
    memory, few = Memory(monkeypatch), ["--eval.shuffled_rows", "0"]
    memory.fails_at = fails_at
    assert main(["train", str(quick_recipe), *few]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: memory ran out in stage 0 (CUDA out of memory.")
    assert "Traceback" not in error
    change = re.search(r"`(--stages[^`]*)`", error)
    assert change is not None
    checkpoints = list((tmp_path / "run").glob("stages/train0-*.partial/checkpoints/checkpoint-*/complete"))
    assert len(checkpoints) == (1 if fails_at > 4 else 0)
    memory.calls = memory.fails_at = 0
    assert main(["train", str(quick_recipe), *few, *shlex.split(change[1]), "--traceback"]) == 0
    assert memory.calls == left  # 15 + 8 in all, 8 of them done in the first four steps
    took = json.loads((tmp_path / "run" / "report.json").read_text())["measured"]["training, stage 0"]
    assert (
        took["steps_measured"] == 12
    )  # steps between the last save and the end of an attempt are done again, not counted twice
    assert took["attempts"] == (2 if fails_at > 4 else 1)
