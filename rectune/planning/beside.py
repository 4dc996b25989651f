"""The plan's figures beside what a training measured."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from rectune.methods.measured import FILE
from rectune.model.settings import pick_device
from rectune.planning.known import examples_of
from rectune.planning.plan import length_of, stage_plan
from rectune.recipe.fingerprints import source_of
from rectune.run.line import Line
from rectune.runtime.files import write_atomic

PLAN = "planned.json"


def plan_of(line: Line, i: int) -> dict[str, Any]:
    """What the planner says of training i, which has ended, for its own batch and for the largest that came; kept as a stage.

    A model that the planner cannot follow is one warning and no plan, and so is a method that measures nothing.
    """
    training = line.train_stages[i]

    def build(work: Path) -> None:
        said: dict[str, Any] = {}
        if (training.folder / FILE).exists():
            try:
                said = _planned(line, i, training.folder)
            except Exception as error:
                told = " ".join(str(error).split())[:200]
                warnings.warn(f"the planner cannot follow this model ({told}).", stacklevel=2)
        write_atomic(work / PLAN, json.dumps(said))

    stage = line.folder.stage(f"plan{i}", {"source": source_of(stage_plan)}, [training], build)
    return dict(json.loads((stage.folder / PLAN).read_text()))


def _planned(line: Line, i: int, training: Path) -> dict[str, Any]:
    module, config = line.stage_config(i)
    cuda = pick_device(line.model_settings).type == "cuda"
    examples = examples_of(line, i, config)
    assert examples is not None, "a training has read its log"
    before = json.loads((training / "model" / "rectune.json").read_text()).get("before")
    plan = stage_plan(
        line.model_settings, module, line.recipe.settings["stages"][i], config, vocabulary=len(line.encoder.tokenizer),
        new_tokens=len(line.index.vocabulary), target=examples.completion, device="cuda" if cuda else "cpu",
        fixed=None if cuda else before,
    )  # fmt: skip
    largest = json.loads((training / FILE).read_text())["largest_batch"]
    own = (config.per_device_train_batch_size, length_of(plan.model, config))
    needs = {"own": plan.need(*own), "largest": plan.need(largest[0], largest[1])}
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
