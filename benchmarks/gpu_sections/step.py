"""Section 7 (S6): tokens a second of a LoRA step beside TRL's SFTTrainer with packing, and the memory of both."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.made import MADE_BY, random_model, write_base, write_recipe
from benchmarks.gpu_sections.qlora import quietly

GB = 2**30
STEPS, WARM = 6, 2  # steps of a training, and those that are not timed
# Shape, 4 bits, examples a step, of which so many at a time on our side, seconds that a row takes
CASES = (("Qwen3-0.6B", False, 256, 64, 18), ("Qwen3-1.7B", False, 128, 32, 20), ("Qwen3-8B", True, 64, 16, 35))
QUICK = (("tiny", False, 8, 4, 0),)


def run(bench: Bench) -> None:
    """Both sides take the same examples in every step, so their losses must fall alike."""
    for shape, quantised, examples, rows, needs in QUICK if bench.quick else CASES:
        label = f"{shape}, {'QLoRA' if quantised else 'LoRA'}"
        if not any(bench.wants(f"{label}, {side}", needs=needs) for side in ("rectune", "TRL with packing")):
            _compare(bench, label)
            continue
        with tempfile.TemporaryDirectory() as place:
            case = Case(shape, quantised, examples, rows, bench, Path(place))
            bench.measure(f"{label}, rectune", partial(quietly, case.ours), needs=needs)
            bench.measure(f"{label}, TRL with packing", partial(quietly, case.theirs), needs=needs)
        _compare(bench, label)


def _compare(bench: Bench, label: str) -> None:
    """The gate and the ratio: no ratio where the losses part by more than 2 %."""
    ours, theirs = (bench.rows.get(f"{label}, {side}") for side in ("rectune", "TRL with packing"))
    if ours is None or theirs is None:
        return

    def both() -> dict[str, Any]:
        off = max(abs(a - b) / max(abs(b), 1e-9) for a, b in zip(ours["losses"], theirs["losses"], strict=True))
        same = {"largest_relative_difference_of_loss": off, "same_losses": off <= 0.02}
        return same | ({"ratio": ours["tokens_per_s"] / theirs["tokens_per_s"]} if same["same_losses"] else {})

    bench.rows.pop(f"{label}, ratio", None)
    bench.measure(f"{label}, ratio", both)


class Case:
    """A shape, its examples, and the two trainers; each makes its model anew from the same seed."""

    def __init__(self, shape: str, quantised: bool, examples: int, rows: int, bench: Bench, place: Path) -> None:
        from rectune.model.new_tokens import new_token_ids
        from rectune.recipe.load import load_recipe
        from rectune.run.asked import ask
        from rectune.run.run import Run

        self.shape, self.bench, self.place, self.device = shape, bench, place, str(bench.card["device"])
        base = write_base(shape, place / "base", self.device, weights=False)
        recipe = _recipe(place, base, self.device, quantised, examples, rows, quick=bench.quick)
        self.line = Run(ask(load_recipe(recipe), need="no files"))  # its base has no weights
        self.tokens = new_token_ids(self.line.encoder.tokenizer, self.line.index)
        self.training = self.line.asked.trainings[0]
        self.config = self.training.config()

    def model(self) -> Any:
        """The base with its adapter."""
        from rectune.model.adapters import with_adapter
        from rectune.model.settings import quantization_config

        settings = self.line.asked.model
        made = random_model(self.shape, self.device, quantisation=quantization_config(settings))
        return with_adapter(made, settings, self.tokens, seed=0)

    def ours(self) -> dict[str, Any]:
        """By the code of `rectune train`: batches of like length."""
        from benchmarks.gpu_sections.made import every_trainer_with, trainable

        timer = _timer(self.bench)
        with tempfile.TemporaryDirectory(dir=self.place) as folder, every_trainer_with(timer):
            task = trainable(self.line, self.model(), self.tokens)
            self.training.method.train(task, self.config, Path(folder))
            history = json.loads((Path(folder) / "log_history.json").read_text())
        return self._figures(timer, history)

    def theirs(self) -> dict[str, Any]:
        """TRL alone, the same examples packed into rows of 1,024 tokens."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        mixture = self._mixture()
        data = Dataset.from_list(mixture.features(range(len(mixture)), 0))
        ours, timer = self.config, _timer(self.bench)
        with tempfile.TemporaryDirectory(dir=self.place) as folder:
            config = SFTConfig(
                output_dir=folder, packing=True, max_length=1024, max_steps=ours.max_steps, learning_rate=ours.learning_rate, lr_scheduler_type="constant",
                per_device_train_batch_size=self._packed_rows(data), logging_steps=1, activation_checkpointing=ours.activation_checkpointing,
                bf16=ours.bf16, use_cpu=ours.use_cpu, report_to="none", save_strategy="no", seed=0,
            )  # fmt: skip
            trainer = SFTTrainer(
                model=self.model(),
                args=config,
                processing_class=self.line.encoder.tokenizer,
                train_dataset=data,
                callbacks=[timer],
            )
            trainer.train()
            return self._figures(timer, trainer.state.log_history) | {"rows_after_packing": len(trainer.train_dataset)}

    def _mixture(self) -> Any:
        from rectune.tasks.examples import Mixture

        return Mixture(
            self.line.specs(self.training.tasks),
            "train",
            self.line.encoder,
            seed=0,
            max_length=self.config.max_length,
            loss_on_all=True,
        )

    def _packed_rows(self, data: Any) -> int:
        """How many rows the packed examples make, so that one step takes all of them."""
        from trl import pack_dataset

        return len(pack_dataset(data.with_format("arrow"), 1024, "bfd"))

    def _figures(self, timer: Any, history: list[dict[str, Any]]) -> dict[str, Any]:
        mixture = self._mixture()
        tokens = int(mixture.lengths(0).sum())
        seconds = sorted(timer.seconds[WARM:])[len(timer.seconds[WARM:]) // 2]
        flops = 6 if self.config.activation_checkpointing else 4
        used = sum(p.numel() for p in _skeleton(self.shape).parameters())
        rate = tokens / seconds
        return {
            "tokens_per_s": rate, "s_per_step": seconds, "tokens_per_step": tokens, "examples_per_step": len(mixture),
            "peak_gb": timer.peak / GB if timer.peak else None, "losses": [e["loss"] for e in history if "loss" in e],
            "share_of_matrix_rate": rate * flops * used / (self.bench.card["matrix_tflops"] * 1e12),
        }  # fmt: skip


def _skeleton(shape: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from benchmarks.gpu_sections.made import config_of

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config_of(shape))


def _timer(bench: Bench) -> Any:
    """A callback that takes the wall seconds of every step and the allocator's peak over them."""
    import time

    import torch
    from transformers import TrainerCallback

    class Timer(TrainerCallback):  # type: ignore[misc]
        seconds: list[float]
        peak = 0

        def __init__(self) -> None:
            self.seconds = []

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if bench.cuda:
                torch.cuda.synchronize()
                if not self.seconds:
                    torch.cuda.reset_peak_memory_stats()
            self._since = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if bench.cuda:
                torch.cuda.synchronize()
                self.peak = torch.cuda.max_memory_allocated()
            self.seconds.append(time.perf_counter() - self._since)

    return Timer()


def _recipe(place: Path, base: Path, device: str, quantised: bool, examples: int, rows: int, *, quick: bool) -> Path:
    """Histories of 5 to 60 names of four codes, one sequence each with the loss on all of it."""
    four = {"load_in_4bit": True, "use_bnb_nested_quant": True} if quantised else {}
    longest = 20 if quick else 60
    return write_recipe(
        place / "step.yaml",
        data={"call": f"{MADE_BY}:shop", "users": examples, "items": 2000, "shortest": 5, "longest": longest},
        split={"call": "leave_one_out", "max_history": longest},
        index={"call": f"{MADE_BY}:random_ids", "levels": 4, "codes": 256},
        tasks=[{"call": "next_item", "template": "next-item-names.jinja", "examples": "windows"}],
        model={
            "model_name_or_path": str(base), "dtype": "bfloat16", "use_peft": True, "lora_r": 16, "lora_dropout": 0.0, "device": device, **four,
        },
        stages=[{
            "call": "sft", "completion_only_loss": False, "max_steps": 3 if quick else STEPS, "max_length": 256,
            "logging_steps": 1, "per_device_train_batch_size": rows, "gradient_accumulation_steps": examples // rows,
            "learning_rate": 5e-4, "lr_scheduler_type": "constant", "train_sampling_strategy": "group_by_length",
            "activation_checkpointing": True,
        }],
        rank={"template": "next-item-names.jinja"},
        eval={"call": "ranking", "k": [1, 5]},
        seed=0,
        output_dir=str(place / "run"),
    )  # fmt: skip
