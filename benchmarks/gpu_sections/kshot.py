"""Section 6: TALLRec's K-shot table with SmolLM2-135M: training, answers and AUC beside the untuned model and the share of likes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.made import write_chat_base, write_movielens
from benchmarks.gpu_sections.qlora import quietly

RECIPE = "tallrec-movie-kshot-smollm2"
CELLS = [(shots, seed) for seed in (0, 1, 2) for shots in (64, 16, 256)]


def run(bench: Bench) -> None:
    """A cell of the recipe's grid a row."""
    with tempfile.TemporaryDirectory() as place:
        inputs = bench.inputs
        if bench.quick:
            inputs = Path(place) / "inputs"
            write_chat_base(inputs / "smollm2", str(bench.card["device"]))
            write_movielens(inputs / "ml-100k")
        if inputs is None or not (inputs / "smollm2").is_dir() or not (inputs / "ml-100k").is_dir():
            bench.missing("the folders smollm2 (python benchmarks/smollm2.py) and ml-100k in --inputs")
            return
        for shots, seed in CELLS[:1] if bench.quick else CELLS:
            settings = _settings(inputs, Path(place) / "run", shots, seed, bench)
            bench.measure(
                name := f"{shots} shots, seed {seed}",
                lambda s=settings, n=name: quietly(lambda: _cell(s, bench, n)),
                needs=0 if bench.quick else 30,
            )


def _settings(inputs: Path, place: Path, shots: int, seed: int, bench: Bench) -> list[tuple[str, str]]:
    """What differs from the recipe's own command: places, the cell, and in small sizes everything that takes time."""
    settings = {
        "data.path": str(inputs / "ml-100k"), "model.model_name_or_path": str(inputs / "smollm2"), "model.device": bench.card["device"],
        "output_dir": str(place), "split.shots": str(shots), "seed": str(seed), "grid": "null", "eval.wording_rows": "0",
    }  # fmt: skip
    if bench.quick:
        settings |= {
            "stages.0.max_steps": "4",
            "stages.0.eval_steps": "4",
            "stages.0.save_steps": "4",
            "stages.0.ranked_rows": "8",
        }
        settings |= {
            "stages.0.per_device_train_batch_size": "4",
            "stages.0.max_length": "256",
            "rank.max_length": "250",
        }
        settings |= {"split.rows": "120", "split.history": "4", "split.shots": "16"}
    return list(settings.items())


def _cell(settings: list[tuple[str, str]], bench: Bench, name: str) -> dict[str, Any]:
    from rectune.recipe.load import load_recipe
    from rectune.run.train import train

    folder = train(load_recipe(RECIPE, settings))
    bench.keep(name, [folder / "report.json"])
    report = json.loads((folder / "report.json").read_text())
    measured = report["measured"]
    training = measured["training, stage 0"]
    answers = measured["answers, tuned"]
    return {
        "auc": _aucs(report["results"]), "training_s": training["seconds"], "tokens_per_s": training.get("tokens_per_second"),
        "peak_gb": training["peak_gb"], "planned_gb": training.get("planned_gb"),
        "answers_per_s": answers["rows"] / answers["seconds"],
    }  # fmt: skip


def _aucs(results: dict[str, Any]) -> dict[str, float]:
    """AUC of every row of the report's table."""
    return {name: row["auc"][0] for name, row in results["table"].items()}
