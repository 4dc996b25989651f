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
from rectune.run.line import Line
from rectune.runtime.files import write_atomic

PLAN = "planned.json"


def write_plan(line: Line, i: int, work: Path, *, new_tokens: int, before: int) -> None:
    """Write into `work` what the planner says of the training that ended there, for its own batch and for the largest that came.

    `before`: resident bytes before the model was loaded. A model that the planner cannot follow is a warning: the training is
    done and worth more than its plan. Nothing is written for a method that measures nothing.
    """
    if not (work / FILE).exists():
        return
    measured = json.loads((work / FILE).read_text())
    try:
        said = _planned(line, i, measured["largest_batch"], new_tokens=new_tokens, before=before)
    except Exception as error:
        warnings.warn(f"the planner cannot follow this model ({' '.join(str(error).split())[:200]}).", stacklevel=2)
        return
    write_atomic(work / PLAN, json.dumps(said))


def _planned(line: Line, i: int, largest: list[int], *, new_tokens: int, before: int) -> dict[str, Any]:
    module, config = line.stage_config(i)
    cuda = pick_device(line.model_settings).type == "cuda"
    examples = examples_of(line, i, config)
    assert examples is not None, "a training has read its log"
    plan = stage_plan(
        line.model_settings, module, line.recipe.settings["stages"][i], config, vocabulary=len(line.encoder.tokenizer), new_tokens=new_tokens,
        target=examples.completion, device="cuda" if cuda else "cpu", fixed=None if cuda else before,
    )  # fmt: skip
    own = (config.per_device_train_batch_size, length_of(plan.model, config))
    needs = {"own": plan.need(*own), "largest": plan.need(largest[0], largest[1])}
    # PyTorch's counters do not see the CUDA context, so the plan is compared without it.
    total = {name: need.total - (need.fixed if cuda else 0) for name, need in needs.items()}
    return {"batch": list(own), "bytes": total["own"], "bytes_of_largest_batch": total["largest"]}


def measured_of(stage: Path) -> dict[str, Any]:
    """What a report says of a training: seconds, speed, peak and plan (GB = 2^30 bytes)."""
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
    if (stage / PLAN).exists():
        said = json.loads((stage / PLAN).read_text())
        out["planned_gb"] = round(said["bytes_of_largest_batch"] / 2**30, 3)
        out["planned_gb_of_its_batch"] = {"batch": said["batch"], "gb": round(said["bytes"] / 2**30, 3)}
    return out
