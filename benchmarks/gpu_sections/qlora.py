"""Section 2: QLoRA from end to end: a base of random weights in 4 bits, new tokens, training, audit, reloading, export, ranking."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.made import MADE_BY, write_base, write_recipe


def run(bench: Bench) -> None:
    """`rectune train` and `rectune export` as a user would call them, each step a row."""
    shape = "tiny" if bench.quick else "Qwen3-0.6B"
    names = ("train and report", "audit", "reload", "export")
    if all(name in bench.rows for name in names):
        return
    with tempfile.TemporaryDirectory() as place:
        device = str(bench.card["device"])
        base = write_base(shape, Path(place) / "base", device, weights=True)
        recipe = _recipe(Path(place), base, device, quick=bench.quick)
        bench.tidy()
        for name in names:
            bench.rows.pop(name, None)  # the run folder is new, so all of it is
        bench.measure(names[0], lambda: {"shape": shape, **quietly(lambda: _trained(recipe))})
        folder = Path(place) / "run"
        bench.measure(names[1], lambda: _audit(folder))
        bench.measure(names[2], lambda: _reloaded(folder))
        bench.measure(names[3], lambda: quietly(lambda: _exported(folder)))


def quietly(work: Callable[[], Any]) -> Any:
    """Call with what commands print sent to the log."""
    with contextlib.redirect_stdout(sys.stderr):
        return work()


def _recipe(place: Path, base: Path, device: str, *, quick: bool) -> Path:
    users, rows = (40, 8) if quick else (512, 16)
    return write_recipe(
        place / "qlora.yaml",
        data={"call": f"{MADE_BY}:shop", "users": users, "items": users, "shortest": 5, "longest": 30},
        split={"call": "leave_one_out", "max_history": 20},
        index={"call": f"{MADE_BY}:random_ids", "levels": 3, "codes": 32},
        tasks=[{"call": "next_item", "template": "next-item.jinja"}],
        model={
            "model_name_or_path": str(base), "dtype": "bfloat16", "load_in_4bit": True, "use_bnb_nested_quant": True, "use_peft": True,
            "lora_r": 16, "lora_alpha": 32, "device": device,
        },
        stages=[{
            "call": "sft", "max_steps": 6 if quick else 20, "per_device_train_batch_size": rows, "learning_rate": 1e-3,
            "max_length": 256, "logging_steps": 1, "activation_checkpointing": True,
        }],
        rank={"template": "next-item.jinja", "beams": 5 if quick else 20, "k": 5, "max_length": 250},
        eval={"call": "ranking", "k": [1, 5], "shuffled_rows": 0, "wording_rows": 0},
        seed=0,
        output_dir=str(place / "run"),
    )  # fmt: skip


def _trained(recipe: Path) -> dict[str, Any]:
    from rectune.run.train import train

    started = time.perf_counter()
    folder = train(recipe)
    report = json.loads((folder / "report.json").read_text())
    (stage,) = folder.glob("stages/train0-*")
    losses = [e["loss"] for e in json.loads((stage / "log_history.json").read_text()) if "loss" in e]
    took = report["measured"]["training, stage 0"]
    ranking = [v for k, v in report["measured"].items() if k.startswith("ranking, tuned")]
    return {
        "seconds": time.perf_counter() - started, "first_loss": losses[0], "last_loss": losses[-1],
        "tokens_per_s": took.get("tokens_per_second"), "peak_gb": took["peak_gb"], "planned_gb": took.get("planned_gb"),
        "ranked_users_per_s": ranking[0]["rows"] / ranking[0]["seconds"] if ranking else None,
    }  # fmt: skip


def _audit(folder: Path) -> dict[str, Any]:
    """New tokens whose rows a gradient reaches at the first step, and what was saved of them."""
    (stage,) = folder.glob("stages/train0-*")
    audit = json.loads((stage / "audit.json").read_text())
    return {name: audit[name] for name in ("new_tokens", "gradient_in", "gradient_out", "saved_bytes") if name in audit}


def _reloaded(folder: Path) -> dict[str, Any]:
    """How far logits are after a reload in this process, beside their size."""
    from rectune.methods.probe import check_reloaded
    from rectune.model.adapters import load_tuned
    from rectune.run.run import open_run

    line = open_run(folder)
    tuned = line.tuned.folder / "model"
    model = load_tuned(line.asked.model, line.place("base").folder, tuned, line.index, seed=line.asked.seed)
    kinds = {type(module).__name__ for module in model.modules()}
    return {**check_reloaded(model, tuned), "in_4_bits": "Linear4bit" in kinds}


def _exported(folder: Path) -> dict[str, Any]:
    """The adapter merged into bfloat16: bytes, and what ranking loses or gains by it."""
    from rectune.bundle.export import export

    place, about = export(folder)
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    shutil.rmtree(place)
    return {"bytes": size, "weights": about["weights"], "forms": about.get("forms"), "prompts": about["prompts"]}
