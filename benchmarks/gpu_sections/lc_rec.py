"""Section 8: LC-Rec's semantic ids with SmolLM2-135M on Amazon Scientific: as many epochs as fit, then every test user ranked."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.made import write_chat_base, write_lc_rec
from benchmarks.gpu_sections.qlora import quietly

RECIPE = "lcrec-scientific-smollm2"
SHARE = 0.6  # of the time that is left when training begins goes to training
LIST, BEAMS_AT_ONCE = 10, 65_536
ON_A_GPU = 128  # rows of a step


def run(bench: Bench) -> None:
    """Speed on a few steps, then a whole training of as many epochs as that speed allows, then both rankings."""
    if all(row in bench.rows for row in ("baselines", "untuned model", "tuned model")):
        return
    with tempfile.TemporaryDirectory() as place:
        inputs = bench.inputs
        data = "amazon18_scientific"
        if bench.quick:
            inputs = Path(place) / "inputs"
            write_chat_base(inputs / "smollm2", str(bench.card["device"]))
            write_lc_rec(inputs / data)
        if inputs is None or not (inputs / "smollm2").is_dir() or not (inputs / data).is_dir():
            bench.missing(f"the folders smollm2 (python benchmarks/smollm2.py) and {data} in --inputs")
            return
        run_folder = Path(place) / "run"
        if (inputs / RECIPE).is_dir():  # log, split, vectors and index, made beforehand
            shutil.copytree(inputs / RECIPE, run_folder)
        settings = _settings(inputs, data, run_folder, bench)
        bench.measure("speed", lambda: quietly(lambda: _speed(settings)))
        if "speed" not in bench.rows:
            return
        epochs = 1 if bench.quick else max(1, int(SHARE * bench.remaining / bench.rows["speed"]["s_per_epoch"]))
        settings = [*settings, ("stages.0.num_train_epochs", str(epochs))]
        line = _line(settings)
        for name in ("tuned model", "untuned model", "baselines"):
            bench.rows.pop(name, None)  # they belong to this training
        bench.measure("tuned model", lambda: quietly(lambda: _tuned(line, epochs)))
        bench.measure("untuned model", lambda: quietly(lambda: _ranked(line, "untuned")), needs=0 if bench.quick else 8)
        bench.measure("baselines", lambda: quietly(lambda: _baselines(line)), needs=0 if bench.quick else 5)


def _settings(inputs: Path, data: str, place: Path, bench: Bench) -> list[tuple[str, str]]:
    settings = {
        "data.path": str(inputs / data), "model.model_name_or_path": str(inputs / "smollm2"), "model.device": bench.card["device"],
        "output_dir": str(place), "rank.prior": "null", "rank.batch_tokens": str(BEAMS_AT_ONCE),
    }  # fmt: skip
    if bench.cuda:  # a step of 32 rows is all waiting for launches there
        settings["stages.0.per_device_train_batch_size"] = str(ON_A_GPU)
    if bench.quick:
        settings |= {
            "index": "{call: 'benchmarks.gpu_sections.made:random_ids', levels: 2, codes: 16}",
            "vectors": "null",
        }
        settings |= {"stages.0.per_device_train_batch_size": "8", "stages.0.logging_steps": "1", "rank.beams": "10"}
    return list(settings.items())


def _line(settings: list[tuple[str, str]]) -> Any:
    from rectune.recipe.load import load_recipe
    from rectune.run.line import Line

    line = Line(load_recipe(RECIPE, settings))
    line.check()
    return line


def _speed(settings: list[tuple[str, str]]) -> dict[str, Any]:
    """Seconds an epoch would take, from eight steps of a training of its own, those of its first steps left out."""
    from rectune.methods.measured import FILE

    line = _line([*settings, ("stages.0.max_steps", "2")])
    started = time.perf_counter()
    first = json.loads((line.tuned.folder / FILE).read_text())
    line = _line([*settings, ("stages.0.max_steps", "10")])
    longer = json.loads((line.tuned.folder / FILE).read_text())
    each = (longer["seconds"] - first["seconds"]) / (longer["steps"] - first["steps"])
    _, config = line.stage_config(0)
    rows = len(line.specs[0].rows("train"))
    batch = config.per_device_train_batch_size * config.gradient_accumulation_steps
    steps = -(-rows // batch)
    return {
        "s_per_epoch": each * steps, "steps_per_epoch": steps, "examples": rows,
        "tokens_per_s": longer["tokens"] / longer["steps"] / each, "seconds": time.perf_counter() - started,
    }  # fmt: skip


def _tuned(line: Any, epochs: int) -> dict[str, Any]:
    from rectune.planning.beside import measured_of, plan_of

    measured = measured_of(line.tuned.folder, plan_of(line, 0))
    history = json.loads((line.tuned.folder / "log_history.json").read_text())
    losses = [entry["loss"] for entry in history if "loss" in entry]
    return {
        "epochs": epochs, "training": {k: v for k, v in measured.items() if not isinstance(v, str)}, "first_loss": losses[0],
        "last_loss": losses[-1], **_ranked(line, "tuned"),
    }  # fmt: skip


def _ranked(line: Any, who: str) -> dict[str, Any]:
    """All test users, seen items hidden; and the same lists with seen items left in."""
    from rectune.decoding.language_model import Shelf
    from rectune.decoding.ranking import recall_and_ndcg, target_ranks

    ranker = replace(line.ranker(who), progress=False)
    test, targets = line.split.test, line.task.target.astype(np.int32)
    out: dict[str, Any] = {"users": len(test)}
    for protocol in ("hidden", "shown") if who == "tuned" else ("hidden",):
        hidden = [line.split.seen(test, i).tolist() for i in range(len(test))] if protocol == "hidden" else None
        started = time.perf_counter()
        ranking = ranker.rank(line.task, Shelf(hidden=hidden))
        out[f"users_per_s_{protocol}"] = len(test) / (time.perf_counter() - started)
        found = recall_and_ndcg(target_ranks(ranking, targets), ranking.items.shape[1], k=LIST)
        out |= {f"{name}_{protocol}": value for name, value in found.items()}
    return out


def _baselines(line: Any) -> dict[str, Any]:
    """EASE with recency weights and popularity on the same rows, seen items hidden."""
    from rectune.baselines.ease import ease
    from rectune.baselines.popularity import popularity
    from rectune.baselines.scoring import list_rows
    from rectune.decoding.ranking import recall_and_ndcg

    out: dict[str, Any] = {}
    for name, fit in (("EASE, recency-weighted", ease), ("popularity", popularity)):
        hidden, _ = list_rows(line.split, line.split.test, fit(line.split).score, width=20)
        out |= {f"{name}, {key}": value for key, value in recall_and_ndcg(hidden.place, 20, k=LIST).items()}
    return out
