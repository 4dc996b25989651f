"""The report of a run: evidence gathered from its stages, judged by the recipe's `eval`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rectune
from rectune.decoding.ranking import Ranking
from rectune.planning.beside import measured_of, plan_of
from rectune.recipe.calls import bind, resolve_call
from rectune.run.folder import Stage
from rectune.run.judged import HIDDEN, SHOWN, Evidence, Report, as_json
from rectune.run.line import Line, signature_defaults
from rectune.run.rankings import answered, by_wording, prior_weight, ranked, shuffled_sample
from rectune.runtime.files import write_atomic
from rectune.runtime.processes import is_main, wait


def report(line: Line) -> None:
    """Rank with both models, let the recipe's `eval` judge, and write report.json and report.html."""
    function = resolve_call(line.recipe, "eval")
    arguments = bind(line.recipe, "eval", function, given=("evidence",))
    asked = {**signature_defaults(function), **arguments}
    evidence = gather_evidence(
        line, shuffled=int(asked.get("shuffled_rows", 0)), wordings=int(asked.get("wording_rows", 0))
    )
    line.loaded.clear()
    if is_main():
        made: Report = function(evidence, **arguments)
        write_atomic(line.folder.path / "report.json", as_json(made.data))
        write_atomic(line.folder.path / "report.html", made.page)
        print(made.text)
        print(f"report: {line.folder.path / 'report.html'}")
    wait()


def gather_evidence(line: Line, *, shuffled: int, wordings: int) -> Evidence:
    """Everything a report is made of, from the stages of a run."""
    measured: dict[str, Any] = {}
    rankings: dict[tuple[str, str], Ranking] = {}
    answers: dict[str, NDArray[np.float64]] = {}
    for who in ("untuned", "tuned"):
        if line.task.kind == "answer":
            answers[who], measured[f"answers, {who}"] = answered(line, who)
            continue
        for protocol in (HIDDEN, SHOWN):
            rankings[who, protocol], measured[f"ranking, {who}, {protocol}"] = ranked(line, who, protocol)
    weight, prior = None, None
    if line.prior is not None and line.task.kind == "item":
        weight, prior = prior_weight(line), partial(line.prior.score, line.split)
        for protocol in (HIDDEN, SHOWN):
            mixed = ranked(line, "tuned", protocol, weight=weight["weight"])
            rankings["mixed", protocol], measured[f"ranking, mixed, {protocol}"] = mixed
    sample, shuffled_ranking = None, None
    if shuffled and line.task.kind == "item":
        sample = shuffled_sample(line, shuffled)
        shuffled_ranking, measured["ranking, tuned, shuffled"] = ranked(line, "tuned", HIDDEN, shuffled=shuffled)
    worded = by_wording(line, wordings)
    training = [json.loads((stage.folder / "log_history.json").read_text()) for stage in line.train_stages]
    audits = [json.loads((stage.folder / "audit.json").read_text()) for stage in line.train_stages]
    for i, stage in enumerate(line.train_stages):
        measured[f"training, stage {i}"] = measured_of(stage.folder, plan_of(line, i))
    return Evidence(
        recipe=line.recipe, split=line.split, index=line.index, task=line.task, task_section=line.ranked_section, rankings=rankings, answers=answers,
        shuffled=shuffled_ranking, shuffled_rows=sample, training=training, audits=audits, measured=measured,
        environment=environment(line), cached=partial(_cached, line), seed=line.seed, wordings=worded, prior=prior, prior_weight=weight,
    )  # fmt: skip


def _cached(line: Line, name: str, keys: Any, build: Callable[[Path], None]) -> Path:
    """A stage for an evaluator: built once for this split."""
    return line.folder.stage(name, keys, [line.split_stage], build, alone=True).folder


def environment(line: Line) -> dict[str, Any]:
    """Versions, device, threads and commit of this run."""
    import torch

    from rectune.model.settings import pick_device

    names = (
        "torch",
        "transformers",
        "trl",
        "peft",
        "bitsandbytes",
        "datasets",
        "accelerate",
        "numpy",
        "polars",
        "scikit-learn",
    )
    device = pick_device(line.model_settings)
    return {
        "rectune": rectune.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
        "fingerprints": {stage.folder.name.rpartition("-")[0]: stage.fingerprint for stage in line.built()},
        "tasks": [_tuned_on(stage) for stage in line.train_stages],
        "templates": {template.name: template.hash for template in line.templates},
    }


def _tuned_on(stage: Stage) -> list[dict[str, Any]]:
    """The tasks of a training stage: how many rows each has, and what was left out or who wrote the texts."""
    tasks: list[dict[str, Any]] = json.loads((stage.folder / "model" / "rectune.json").read_text()).get("tasks", [])
    return tasks


def _commit() -> str | None:
    """The commit of the clone that rectune runs from, or None when it was installed."""
    here = Path(rectune.__file__).parent
    if not (here.parent / ".git").exists():
        return None
    try:
        out = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return None
    return out.stdout.strip() or None
