"""Section 8: LC-Rec's semantic ids with SmolLM2-135M on Amazon Scientific: what pre-training is worth, and LoRA beside all weights."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.made import write_chat_base, write_lc_rec
from benchmarks.gpu_sections.qlora import quietly

RECIPE = "lcrec-scientific-smollm2"
BEAMS_AT_ONCE = 65_536
ON_A_GPU = 128  # rows of a step: at the recipe's 32 a step is all waiting for launches
IN_FULL = {"model.use_peft": "false", "stages.0.learning_rate": "5e-4"}
DRAWN = {"model.random_weights": "true"}
WAYS: dict[str, dict[str, str]] = {  # what differs from the recipe
    "SmolLM2, LoRA": {},
    "SmolLM2, all weights": IN_FULL,
    "random weights, LoRA": DRAWN,
    "random weights, all weights": {**DRAWN, **IN_FULL},
}


def run(bench: Bench) -> None:
    """A whole `rectune train` of the recipe a row, its report kept beside the figures."""
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
        for name, differs in WAYS.items():
            if not bench.wants(name, needs=0 if bench.quick else 120):
                continue
            folder = Path(place) / name.replace(" ", "-").replace(",", "")
            if (inputs / RECIPE).is_dir():  # log, split, vectors and index, made beforehand
                shutil.copytree(inputs / RECIPE, folder)
            settings = _settings(inputs / data, inputs / "smollm2", folder, bench) | differs
            bench.measure(name, partial(quietly, partial(_trained, settings, bench, name)))


def _settings(data: Path, base: Path, place: Path, bench: Bench) -> dict[str, str]:
    settings = {
        "data.path": str(data), "model.model_name_or_path": str(base), "model.device": str(bench.card["device"]),
        "output_dir": str(place), "rank.batch_tokens": str(BEAMS_AT_ONCE),
    }  # fmt: skip
    if bench.cuda:
        settings["stages.0.per_device_train_batch_size"] = str(ON_A_GPU)
    if bench.quick:
        settings |= {
            "index": "{call: 'benchmarks.gpu_sections.made:random_ids', levels: 2, codes: 16}",
            "vectors": "null",
            "rank.prior": "null",
            "stages.0.per_device_train_batch_size": "8",
            "stages.0.logging_steps": "1",
            "stages.0.num_train_epochs": "1",
            "rank.beams": "10",
        }
    return settings


def _trained(settings: dict[str, str], bench: Bench, name: str) -> dict[str, Any]:
    from rectune.recipe.load import load_recipe
    from rectune.run.train import train

    folder = train(load_recipe(RECIPE, list(settings.items())))
    bench.keep(name, [folder / "report.json"])
    report = json.loads((folder / "report.json").read_text())
    took = report["measured"]["training, stage 0"]
    ranked = report["measured"]["ranking, tuned, seen items hidden"]
    losses = [entry["loss"] for entry in report["training"][0] if "loss" in entry]
    return {
        "epochs": float(report["settings"]["stages"][0]["num_train_epochs"]), "training_s": took["seconds"],
        "tokens_per_s": took["tokens_per_second"], "peak_gb": took["peak_gb"], "planned_gb": took.get("planned_gb"),
        "first_loss": losses[0], "last_loss": losses[-1], "users": ranked["rows"], "users_per_s": ranked["rows"] / ranked["seconds"],
        "table": _table(report["results"]),
    }  # fmt: skip


def _table(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For each row of the report, Recall and NDCG at 10 under both protocols."""
    out: dict[str, dict[str, float]] = {}
    for protocol, rows in results["protocols"].items():
        for row, figures in rows.items():
            short = "hidden" if protocol.endswith(" hidden") and "not" not in protocol else "shown"
            out.setdefault(row, {}).update(
                {f"{metric}_{short}": figures[metric][0] for metric in ("recall@10", "ndcg@10")}
            )
    return out
