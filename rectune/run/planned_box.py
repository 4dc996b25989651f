"""The plan's figures beside what a training measured."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rectune.log.split import evenly
from rectune.methods.measured import FILE
from rectune.methods.token_batches import rows_for
from rectune.model.new_tokens import rows_needed
from rectune.model.settings import pick_device
from rectune.planning.stage import length_of, stage_plan
from rectune.recipe.box import Box, Held
from rectune.run.asked import Training
from rectune.run.run import Run
from rectune.runtime.files import write_atomic

PLAN = "planned.json"
_SAMPLE = 200  # examples whose lengths are looked at


class Examples(NamedTuple):
    """Examples an epoch, their mean `length` in tokens, and the longest `completion` of those that were looked at."""

    number: int
    length: float
    completion: int


def lengths_of(run: Run, training: Training, config: Any) -> Examples:
    """What a training takes."""
    from rectune.tasks.examples import Mixture

    specs, encoder, seed = run.specs(training.tasks), run.encoder, run.asked.seed
    mixture = Mixture(specs, "train", encoder, seed=seed, max_length=config.max_length, loss_on_all=False)
    some = mixture.examples(evenly(len(mixture), _SAMPLE), 0)
    lengths = [len(e.prompt) + len(e.completion) for e in some]
    return Examples(
        len(mixture), float(np.mean(lengths)) if lengths else 0.0, max((len(e.completion) for e in some), default=0)
    )


def plan_of(run: Run, i: int) -> dict[str, Any]:
    """What the planner says of training i, which has ended, for its own batch and for the largest that came; kept as a box.

    A model that the planner cannot follow is one warning and no plan, and so is a method that measures nothing.
    """
    training = run.asked.trainings[i]

    def build(held: Held, folder: Path) -> None:
        trained, said = held.folder(training.name), dict[str, Any]()
        if (trained / FILE).exists():
            try:
                said = _planned(run, training, trained)
            except Exception as error:
                told = " ".join(str(error).split())[:200]
                warnings.warn(f"the planner cannot follow this model ({told}).", stacklevel=2)
        write_atomic(folder / PLAN, json.dumps(said))

    def load(held: Held, folder: Path) -> dict[str, Any]:
        return dict(json.loads((folder / PLAN).read_text()))

    found: dict[str, Any] = run.load(Box(f"plan{i}", (training.name,), dict, build, load, (stage_plan,)))
    return found


def _planned(run: Run, training: Training, trained: Path) -> dict[str, Any]:
    config = training.config()
    cuda = pick_device(run.asked.model).type == "cuda"
    examples = lengths_of(run, training, config)
    before = json.loads((trained / "model" / "rectune.json").read_text()).get("before")
    plan = stage_plan(
        run.asked.model, training.method, training.section, config, vocabulary=rows_needed(run.encoder.tokenizer),
        new_tokens=len(run.index.vocabulary), target=examples.completion, device="cuda" if cuda else "cpu",
        fixed=None if cuda else before,
    )  # fmt: skip
    largest = json.loads((trained / FILE).read_text())["largest_batch"]
    length = length_of(plan.model, config)
    own = (rows_for(config, length), length)
    needs = {"own": plan.need(*own), "largest": plan.need(*plan.asked(*largest))}
    # PyTorch's counters do not see the CUDA context, so the plan is compared without it.
    total = {name: need.total - (need.fixed if cuda else 0) for name, need in needs.items()}
    return {"batch": list(own), "bytes": total["own"], "bytes_of_largest_batch": total["largest"]}


def measured_of(stage: Path, planned: dict[str, Any]) -> dict[str, Any]:
    """What a report says of a training: seconds, speed, peak and plan (GB = 2^30 bytes). `planned`: of `plan_of`."""
    out: dict[str, Any] = {"seconds": json.loads((stage / "model" / "rectune.json").read_text())["seconds"]}
    if not (stage / FILE).exists():
        return out
    totals = json.loads((stage / FILE).read_text())
    if totals["seconds"] > 0:
        out["tokens_per_second"] = round(totals["tokens"] / totals["seconds"], 1)
        out["steps_per_second"] = round(totals["steps"] / totals["seconds"], 3)
    peak = totals["reserved"] if totals["reserved"] is not None else totals["peak"]
    out |= {"peak_gb": round(peak / 2**30, 3), "peak_is": totals["of"], "attempts": totals["attempts"]}
    out |= {"largest_batch": totals["largest_batch"], "steps_measured": totals["steps"]}
    if planned:
        out["planned_gb"] = round(planned["bytes_of_largest_batch"] / 2**30, 3)
        out["planned_gb_of_its_batch"] = {"batch": planned["batch"], "gb": round(planned["bytes"] / 2**30, 3)}
    return out
