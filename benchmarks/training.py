"""Training steps and ranking on the base of a run: beside transformers' own Trainer, and beside its `generate`.

    python -m benchmarks.training RUN [--steps 4] [--pairs 3] [--rows 64] [--stages.0.KEY VALUE …]

RUN is a finished run of a recipe whose first stage is `sft` with an adapter. Both trainers begin with the same base and adapter and see the
same examples in the same batches; where their losses part by more than 1 %, no ratio is printed. Of each training the first step is left out.
Seconds are those of the process's CPU, or of the clock where there is a GPU; tokens are those that attention sees. The ranking is that of
`benchmarks/decoding.py --run`, in float32.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.gpu_sections.made import every_trainer_with, trainable
from benchmarks.run_search import end_to_end
from benchmarks.side_by_side import claim, interval, say
from rectune.cli import parse_overrides
from rectune.model.adapters import with_adapter
from rectune.model.load import load_base
from rectune.model.new_tokens import new_token_ids
from rectune.run.run import Run, open_run
from rectune.tasks.examples import Mixture

SHARED = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "activation_checkpointing", "warmup_steps", "weight_decay",
    "max_grad_norm", "adam_beta1", "adam_beta2", "optim", "bf16", "fp16", "use_cpu", "max_steps", "logging_steps", "seed",
    "train_sampling_strategy", "disable_tqdm", "report_to", "save_strategy",
)  # fmt: skip


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds of each step, reading its batch left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._cuda = torch.cuda.is_available()

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._since = self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(self._now() - self._since)


class Case:
    """The first training of a run, a few steps of it: by its method, and by transformers alone."""

    def __init__(self, run: Run, steps: int) -> None:
        self.run, self.training = run, run.asked.trainings[0]
        if self.training.section["call"] != "sft" or not run.asked.model.library.use_peft:
            raise SystemExit("the first stage of RUN must be `sft` with an adapter (`model.use_peft: true`)")
        self.config = self.training.config()
        self.config.max_steps, self.config.logging_steps = steps, 1
        self.config.train_sampling_strategy = "sequential"
        self.config.early_stopping_patience, self.config.disable_tqdm = None, True
        self.config.save_strategy = self.config.eval_strategy = "no"
        self.new_tokens = new_token_ids(run.encoder.tokenizer, run.index)
        on_all = self.config.completion_only_loss is False
        self.examples = Mixture(
            run.specs(self.training.tasks), "train", run.encoder, seed=run.asked.seed,
            max_length=self.config.max_length, loss_on_all=on_all,
        )  # fmt: skip

    def tokens(self, steps: int) -> int:
        """Tokens of all steps but the first."""
        size = self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps
        return sum(len(row["input_ids"]) for row in self.examples.features(range(size, steps * size), 0))

    def model(self) -> Any:
        """The base with a fresh adapter."""
        asked = self.run.asked
        base = load_base(asked.model, self.run.place("base").folder, self.run.index, seed=asked.seed)
        return with_adapter(base, asked.model, self.new_tokens, seed=asked.seed)

    def ours(self, folder: Path) -> tuple[list[float], list[float]]:
        """Seconds and losses of each step."""
        clock, task = Clock(), replace(trainable(self.run, self.model(), self.new_tokens), seed=self.run.asked.seed)
        with every_trainer_with(clock):
            self.training.method.train(task, self.config, folder)
        return clock.seconds, _losses(json.loads((folder / "log_history.json").read_text()))

    def theirs(self, folder: Path) -> tuple[list[float], list[float]]:
        """The same by transformers' Trainer with its own collator."""
        from transformers import DataCollatorForSeq2Seq

        size = self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps
        rows = self.examples.features(range(self.config.max_steps * size), 0)
        clock = Clock()
        trainer = Trainer(
            model=self.model(),
            args=TrainingArguments(output_dir=str(folder), **{name: getattr(self.config, name) for name in SHARED}),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(self.run.encoder.tokenizer),
            callbacks=[clock],
        )
        trainer.train()
        return clock.seconds, _losses(trainer.state.log_history)


def _losses(history: list[dict[str, Any]]) -> list[float]:
    return [entry["loss"] for entry in history if "loss" in entry]


def train(run: Run, *, steps: int, pairs: int) -> None:
    """Both sides in turn; the gate, the rates and the ratio."""
    case = Case(run, steps)
    tokens = case.tokens(steps)
    taken: dict[str, list[float]] = {"rectune": [], "Trainer": []}
    for _ in range(pairs):
        losses = []
        for name, work in (("rectune", case.ours), ("Trainer", case.theirs)):
            with tempfile.TemporaryDirectory() as folder:
                seconds, loss = work(Path(folder))
            taken[name].append(sum(seconds[1:]))
            losses.append(loss)
        off = float(np.abs(np.subtract(losses[0], losses[1]) / losses[1]).max())
        if not off <= 0.01:
            say(f"training: GATE FAILED: losses are {losses[0]} and {losses[1]}")
            return
    rates = {name: tokens / float(np.median(seconds)) for name, seconds in taken.items()}
    ratio = np.array(taken["Trainer"]) / np.array(taken["rectune"])
    label = f"training {run.asked.recipe.name}, {steps} steps of {case.config.per_device_train_batch_size} examples, {tokens:,} tokens"
    say(
        f"{label}: same losses within {off:.2%}; {rates['rectune']:,.0f} tokens/s against {rates['Trainer']:,.0f}: {claim(interval(ratio))}"
    )


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=3, help="how often each side runs")
    parser.add_argument("--rows", type=int, default=64, help="users that are ranked; 0: leave it out")
    args, rest = parser.parse_known_args()
    say(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} thread, "
        f"{platform.machine()}, seed 0, {time.strftime('%Y-%m-%d')}"
    )
    train(open_run(args.run, parse_overrides(rest)), steps=args.steps, pairs=args.pairs)
    if args.rows:
        end_to_end(args.run, rows=args.rows, pairs=args.pairs, overrides=[("model.dtype", "float32")])


if __name__ == "__main__":
    main()
