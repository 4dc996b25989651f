"""Section 3: what the planner says beside what the allocator of a capped card gives: peak, and the largest batch that runs."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.made import MADE_BY, random_model, write_base, write_recipe
from benchmarks.gpu_sections.qlora import quietly

GB = 2**30
LENGTH = 512  # tokens of every example
# Shape, 4 bits, caps in GB, seconds that one cap takes on the fastest card known. What tells most comes first.
CASES = (
    ("Qwen3-0.6B", True, (8,), 6),
    ("Qwen3-1.7B", True, (8, 12), 10),
    ("Qwen3-8B", True, (16, 24), 16),
    ("Qwen3-1.7B", False, (12, 16), 10),
    ("Qwen3-8B", False, (24,), 16),
    ("Qwen3-0.6B", False, (8, 12), 10),
    ("Qwen3-0.6B", True, (12, 16, 24), 16),
    ("Qwen3-1.7B", True, (16, 24), 16),
    ("Qwen3-1.7B", False, (8, 24), 16),
    ("Qwen3-8B", True, (8, 12), 16),
    ("Qwen3-0.6B", False, (16, 24), 16),
    ("Qwen3-8B", False, (8, 12, 16), 6),  # by the plan not one row
)


def run(bench: Bench) -> None:
    """Every shape, LoRA and QLoRA, checkpointed, under every cap."""
    if bench.quick:
        bench.measure("tiny, QLoRA", lambda: _uncapped("tiny", True, bench))
        bench.measure("tiny, LoRA", lambda: _uncapped("tiny", False, bench))
        return
    if bench.beside:
        bench.missing("a card of its own: what the context holds is told by what is in use before anything is loaded")
        return
    if not bench.cuda:
        bench.missing("a CUDA device, whose allocator can be capped (on a CPU: python benchmarks/planner.py)")
        return
    for shape, quantised, caps, seconds in CASES:
        adapter, there = "QLoRA" if quantised else "LoRA", bench.card["memory_gb"]
        names = {cap: f"{shape}, {adapter}, {cap} GB" for cap in caps if cap <= there}
        if not any(bench.wants(name, needs=seconds) for name in names.values()):
            continue
        with tempfile.TemporaryDirectory() as place:
            case = Case(shape, quantised, bench, Path(place))
            for cap, name in names.items():
                bench.measure(name, partial(case.under, cap), needs=seconds)


class Case:
    """A shape with its plan; the model is made anew for every attempt."""

    def __init__(self, shape: str, quantised: bool, bench: Bench, place: Path, *, plan_for: str | None = None) -> None:
        """`plan_for`: the device that is planned for, where it is another than the one at hand."""
        from rectune.recipe.load import load_recipe
        from rectune.run.asked import ask
        from rectune.run.run import Run

        device = str(bench.card["device"])
        base = write_base(shape, place / "base", device, weights=False)
        self.shape, self.bench, self.place = shape, bench, place
        self.recipe = load_recipe(_recipe(place, base, device, quantised))
        self.line = Run(ask(self.recipe, need="no files"))  # its base has no weights
        self.settings = self.line.asked.model
        self.tokens = _new_tokens(self.line)
        self.plan = _plan(self.line, len(self.tokens), plan_for or device)

    def under(self, cap: float) -> dict[str, Any]:
        """Planned and measured on a card of `cap` GB: the allocator gets what the context leaves of it.

        The figures of memory are those of the largest batch that ran.
        """
        limit = round(cap * GB) - round(self.bench.card["context_gb"] * GB)
        rows = self.plan.largest_batch(round(cap * GB), LENGTH, near=8)
        row: dict[str, Any] = {"cap_gb": cap, "planned_rows": rows, "largest_rows": 0}
        if rows == 0:
            return row
        for tried in self._ladder(rows):
            found = self.attempt(tried, limit)
            if found is None:
                row["failed_rows"] = tried  # the fewest that did not run
            if tried == rows and found is None:
                row["runs"] = False
            if found is not None:
                row["runs"] = tried >= rows
                planned = (self.plan.need(tried, LENGTH).total - (self.plan.fixed or 0)) / GB
                return row | {"largest_rows": tried, "planned_gb": planned, **found}
        return row

    def _ladder(self, rows: int) -> list[int]:
        """Batches from a little above the planned one down to half of it, about 6 % apart."""
        above = [max(rows + 2, round(1.12 * rows)), max(rows + 1, round(1.06 * rows))]
        below = [max(1, round(rows * share)) for share in (0.94, 0.88, 0.82, 0.76, 0.7, 0.6, 0.5)]
        return list(dict.fromkeys([*above, rows, *below]))

    def attempt(self, rows: int, limit: int | None = None) -> dict[str, Any] | None:
        """Two steps of `rows` examples by the code of `rectune train`; what they took, or None where memory ran out.

        `limit`: bytes that the allocator may take once the model is loaded.
        """
        try:
            return dict(quietly(partial(self._train, rows, limit)))
        except (torch.cuda.OutOfMemoryError, MemoryError):
            return None
        finally:
            if self.bench.cuda:
                torch.cuda.set_per_process_memory_fraction(1.0)
            self.bench.tidy()

    def _train(self, rows: int, limit: int | None) -> dict[str, Any]:
        from benchmarks.gpu_sections.made import trainable
        from rectune.methods.measured import FILE
        from rectune.model.adapters import with_adapter
        from rectune.model.settings import quantization_config

        training = self.line.asked.trainings[0]
        config = training.config()
        config.per_device_train_batch_size = rows
        quantisation = quantization_config(self.settings)
        model = random_model(self.shape, str(self.bench.card["device"]), quantisation=quantisation)
        model = with_adapter(model, self.settings, self.tokens, seed=0)
        self.bench.tidy()
        if (
            limit is not None
        ):  # a base of random weights is loaded otherwise than a checkpoint, so only training is capped
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(limit / whole)
        with tempfile.TemporaryDirectory(dir=self.place) as folder:
            training.method.train(trainable(self.line, model, self.tokens), config, Path(folder))
            found = json.loads((Path(folder) / FILE).read_text())
        return {
            "batch": found["largest_batch"], "before_gb": found["before"] / GB, "allocated_gb": found["peak"] / GB,
            "reserved_gb": (found["reserved"] or found["peak"]) / GB, "s_per_step": found["seconds"] / max(1, found["steps"]),
        }  # fmt: skip


def _uncapped(shape: str, quantised: bool, bench: Bench) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        case = Case(shape, quantised, bench, Path(place))
        return {"planned_gb": case.plan.need(2, LENGTH).total / GB, **(case.attempt(2) or {})}


def _new_tokens(line: Any) -> list[int]:
    from rectune.model.new_tokens import new_token_ids

    return new_token_ids(line.encoder.tokenizer, line.index)


def _plan(line: Any, new: int, device: str) -> Any:
    """The planner's own plan of the stage."""
    from rectune.planning.stage import stage_plan

    training = line.asked.trainings[0]
    config = training.config()
    return stage_plan(
        line.asked.model, training.method, training.section, config, vocabulary=len(line.encoder.tokenizer),
        new_tokens=new, target=LENGTH, device="cuda" if device == "cuda" else "cpu",
    )  # fmt: skip


def _recipe(place: Path, base: Path, device: str, quantised: bool) -> Path:
    """Whole sequences of names of two codes, each a little over LENGTH tokens before it is cut, repeated as often as a batch needs."""
    events = LENGTH // 2 + 8
    four = {"load_in_4bit": True, "use_bnb_nested_quant": True} if quantised else {}
    return write_recipe(
        place / "planned.yaml",
        data={"call": f"{MADE_BY}:shop", "users": 24, "items": 40 * events, "shortest": events, "longest": events + 2},
        split={"call": "leave_one_out", "max_history": events},
        index={"call": f"{MADE_BY}:random_ids", "levels": 2, "codes": 256},
        tasks=[{"call": "next_item", "template": "next-item-names.jinja", "examples": "windows", "share": 200}],
        model={"model_name_or_path": str(base), "dtype": "bfloat16", "use_peft": True, "lora_r": 16, "device": device, **four},
        stages=[{
            "call": "sft", "completion_only_loss": False, "max_steps": 2, "max_length": LENGTH, "logging_steps": 1,
            "per_device_train_batch_size": 2, "activation_checkpointing": True,
        }],
        rank={"template": "next-item-names.jinja"},
        eval={"call": "ranking", "k": [1, 5]},
        seed=0,
        output_dir=str(place / "run"),
    )  # fmt: skip
