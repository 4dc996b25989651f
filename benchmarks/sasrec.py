"""SASRec at public strength: configurations tried on validation rows, and the best of them on the test rows.

    python -m benchmarks.sasrec RECIPE OUT [--data.path PATH] [--seed 0] [--only NAME …] [--test NAME …] [--device cpu]

Each configuration is trained once, in OUT/NAME/SEED, and gone on with after an interruption. Figures are NDCG@10 and Recall@10 over the whole
catalogue; on validation rows (all of them) seen items are hidden. No test row is ranked but for the names in --test.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rectune.baselines.sasrec_network import FILE, SasRec, load_sasrec
from rectune.baselines.sasrec_settings import SasRecSettings
from rectune.baselines.sasrec_training import train_sasrec
from rectune.baselines.scoring import list_rows
from rectune.cli import parse_overrides
from rectune.decoding.ranking import recall_and_ndcg
from rectune.log.split import Rows, Split
from rectune.recipe.load import load_recipe
from rectune.run.run import open_recipe

LONG = SasRecSettings(history=50, epochs=200, patience=10, lr_scheduler_type="constant", batch=128)
SAMPLED = replace(LONG, loss="sampled_softmax", negatives=1024, dropout=0.5)
CONFIGURATIONS: dict[str, SasRecSettings] = {
    "full softmax, dropout .3, 30 epochs, the default": SasRecSettings(),
    "full softmax": replace(LONG, dropout=0.5),
    "full softmax, cosine, 60 epochs": replace(
        LONG, dropout=0.5, epochs=60, lr_scheduler_type="cosine", patience=None, batch=64
    ),
    "sampled": SAMPLED,
    "sampled, 256 negatives, dropout .3": replace(SAMPLED, negatives=256, dropout=0.3),
    "sampled, weight decay .3": replace(SAMPLED, weight_decay=0.3),
    "sampled, 128 dimensions": replace(SAMPLED, dimensions=128),
    "sampled, 128 dimensions, 1 layer, no weight decay": replace(SAMPLED, dimensions=128, layers=1, weight_decay=0.0),
    "sampled, cosine, 60 epochs": replace(
        SAMPLED, epochs=60, lr_scheduler_type="cosine", patience=None, validation_rows=5000
    ),
}


def main() -> int:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(CONFIGURATIONS), default=list(CONFIGURATIONS), metavar="NAME")
    parser.add_argument("--test", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--device", default="auto")
    args, rest = parser.parse_known_args()
    own = [("output_dir", str(args.out / "line"))]
    line = open_recipe(load_recipe(args.recipe, [*parse_overrides(rest), *own]))
    with line.folder.lock():
        split = line.split
    print(
        "| configuration | epochs, best | minutes | validation, R@10, N@10 | test hidden | test not hidden |\n|---|---|---|---|---|---|"
    )
    for name in args.only:
        about = _trained(name, split, args.out, args.seed, args.device, test=name in args.test)
        told = [name, f"{about['epochs_trained']}, {about['best_epoch']}", f"{about['seconds'] / 60:.1f}"]
        told += [_pair(about.get(key)) for key in ("validation", "test, hidden", "test, not hidden")]
        print(f"| {' | '.join(told)} |", flush=True)
    return 0


def _trained(name: str, split: Split, out: Path, seed: int, device: str, *, test: bool) -> dict[str, Any]:
    settings = CONFIGURATIONS[name]
    place = out / "".join(c if c.isalnum() else "-" for c in name) / str(seed)
    place.mkdir(parents=True, exist_ok=True)
    written = place / "figures.json"
    if not (place / FILE).exists():
        started = time.perf_counter()
        train_sasrec(split, settings, seed=seed, device=device, folder=place).save(place)
        seconds = time.perf_counter() - started
        written.write_text(json.dumps({"seconds": seconds, "threads": torch.get_num_threads()}))
    model = load_sasrec(place)
    figures = {**json.loads(written.read_text()), **model.about, "settings": asdict(settings)}
    figures.setdefault("validation", _figures(model, split, split.validation)[0])
    if test and "test, hidden" not in figures:
        figures["test, hidden"], figures["test, not hidden"] = _figures(model, split, split.test)
    written.write_text(json.dumps(figures))
    return figures


def _figures(model: SasRec, split: Split, rows: Rows) -> list[tuple[float, float]]:
    both = list_rows(split, rows, lambda part: model.log_probabilities(split, part), width=1)
    found = [recall_and_ndcg(one.place, 10) for one in both]
    return [(one["recall@10"], one["ndcg@10"]) for one in found]


def _pair(figures: Any) -> str:
    return "" if figures is None else ", ".join(f"{value:.4f}".lstrip("0") for value in figures)


if __name__ == "__main__":
    raise SystemExit(main())
