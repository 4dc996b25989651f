"""The report of a run: evidence gathered from its stages, judged by the recipe's `eval`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rectune
from rectune.decoding.ranking import Ranking
from rectune.recipe.box import Box
from rectune.recipe.calls import section_at
from rectune.run.candidates import candidates_box
from rectune.run.judged import HIDDEN, SHOWN, Evidence, as_json
from rectune.run.line import AFTER
from rectune.run.lists import read_lists
from rectune.run.planned_box import measured_of, plan_of
from rectune.run.rankings import answered, by_wording, prior_weight, ranked, ranked_before, sample, wrote
from rectune.run.run import Run
from rectune.run.sasrec_box import NAME as SASREC
from rectune.runtime.files import write_atomic
from rectune.runtime.processes import is_main, wait


def report(run: Run, lists: Sequence[str | Path] = ()) -> None:
    """Rank with both models, let the recipe's `eval` judge, and write report.json and report.html. `lists`: files of lists that were
    made elsewhere, which become rows of the table."""
    asked = run.asked
    if lists and run.rows.judged != "item":
        raise ValueError("`--lists`: this run does not rank the catalogue.")
    others = read_lists(lists, run.split)
    keys = asked.judged_by
    evidence = gather_evidence(
        run,
        shuffled=int(keys.get("shuffled_rows", 0)),
        wordings=int(keys.get("wording_rows", 0)),
        others=others,
        candidates=int(keys.get("candidates", 0)),
        written=(int(keys.get("free_rows", 0)), int(keys.get("free_tokens", 0))),
    )
    run.models.clear()
    if is_main():
        made = asked.judge(evidence, **asked.judge_arguments)
        write_atomic(run.folder.path / "report.json", as_json(made.data))
        write_atomic(run.folder.path / "report.html", made.page)
        print(made.text)
        print(f"report: {run.folder.path / 'report.html'}")
    wait()


def gather_evidence(
    run: Run, *, shuffled: int, wordings: int, others: dict[str, dict[str, Ranking]] | None = None, candidates: int = 0,
    written: tuple[int, int] = (0, 0),
) -> Evidence:  # fmt: skip
    """Everything a report is made of, from the boxes of a run. `written`: after how many test rows each model writes freely, and how many tokens."""
    asked = run.asked
    measured: dict[str, Any] = {}
    rankings: dict[tuple[str, str], Ranking] = {}
    answers: dict[str, NDArray[np.float64]] = {}
    free: dict[str, list[str]] = {}
    protocols = (SHOWN,) if run.rows.judged == "choice" else (HIDDEN, SHOWN)
    for who in ("untuned", "tuned"):
        if run.rows.kind == "answer":
            answers[who], measured[f"answers, {who}"] = answered(run, who)
            continue
        if written[0] and run.rows.kind == "item":
            free[who], measured[f"free text, {who}"] = wrote(run, who, *written)
        for protocol in protocols:
            rankings[who, protocol], measured[f"ranking, {who}, {protocol}"] = ranked(run, who, protocol)
    weight, prior = None, None
    if asked.prior is not None and run.rows.kind == "item":
        weight, prior = prior_weight(run), partial(run["prior"], run.split)
        for protocol in protocols:
            mixed = ranked(run, "tuned", protocol, weight=weight["weight"])
            rankings["mixed", protocol], measured[f"ranking, mixed, {protocol}"] = mixed
    some, shuffled_ranking = None, None
    if shuffled and run.rows.kind == "item":
        some = sample(run.split, shuffled)
        shuffled_ranking, measured["ranking, tuned, shuffled"] = ranked(run, "tuned", HIDDEN, shuffled=shuffled)
    drawn, sampled = [], {}
    if candidates and run.rows.kind == "item":
        drawn = run.load(candidates_box(candidates, asked.seed))
        ways = [("untuned", "untuned", 0.0), ("tuned", "tuned", 0.0)]
        ways += [] if weight is None else [("mixed", "tuned", float(weight["weight"]))]
        for who, of, by in ways:
            found = ranked(run, of, SHOWN, weight=by, candidates=candidates)
            sampled[who], measured[f"ranking, {who}, sampled candidates"] = found
    worded = by_wording(run, wordings)
    trained = [run.place(training.name).folder for training in asked.trainings]
    training = [json.loads((folder / "log_history.json").read_text()) for folder in trained]
    audits = [json.loads((folder / "audit.json").read_text()) for folder in trained]
    for i, folder in enumerate(trained):
        measured[f"training, stage {i}"] = measured_of(folder, plan_of(run, i))
    return Evidence(
        recipe=asked.recipe, split=run.split, index=run.index, task=run.rows, task_section=section_at(asked.recipe, asked.ranked.key),
        rankings=rankings, answers=answers, shuffled=shuffled_ranking, shuffled_rows=some, training=training, audits=audits,
        measured=measured, environment=environment(run), cached=partial(_cached, run), seed=asked.seed, wordings=worded, prior=prior,
        prior_weight=weight, others=others or {}, candidates=drawn, sampled=sampled, written=free,
        sasrec=None if asked.sasrec is None else partial(run.__getitem__, SASREC),
        earlier=run.index.health.get("grown", {}).get("from"), before=ranked_before(run),
    )  # fmt: skip


def _cached(
    run: Run, name: str, keys: Any, build: Callable[[Path], None], made_by: tuple[Any, ...], needs: tuple[str, ...] = ()
) -> Path:
    """A box for an evaluator: built once for this split and what else of the line it needs."""
    box = Box(
        name,
        ("split", *needs),
        lambda: keys,
        lambda held, folder: build(folder),
        lambda held, folder: folder,
        made_by,
        alone=True,
    )
    folder: Path = run.load(box)
    return folder


def environment(run: Run) -> dict[str, Any]:
    """Versions, device, threads, commit and base of this run."""
    import torch

    from rectune.model.settings import pick_device
    from rectune.model.weights import weights_of

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
    device = pick_device(run.asked.model)
    return {
        "rectune": rectune.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "base": weights_of(run.asked.model),
        "date": time.strftime("%Y-%m-%d"),
        "fingerprints": {box.name: run.place(box.name).fingerprint for box in run.line if box.name not in AFTER},
        "made_by_other_code": sorted(run.folder.other_code),
        "tasks": [_tuned_on(run.place(training.name).folder) for training in run.asked.trainings],
        "templates": {task.template.name: task.template.hash for task in run.asked.every_task},
    }


def _tuned_on(stage: Path) -> list[dict[str, Any]]:
    """The tasks of a training stage: how many rows each has, and what was left out or who wrote the texts."""
    tasks: list[dict[str, Any]] = json.loads((stage / "model" / "rectune.json").read_text()).get("tasks", [])
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
