"""SASRec at public strength: configurations tried on validation rows, and the best of them on the test rows.

    python -m benchmarks.sasrec RECIPE OUT [--data.path PATH] [--seeds 0] [--only NAME …] [--test NAME …] [--device cpu] [--epochs N]
    python -m benchmarks.sasrec RECIPE OUT --only "sampled, initial" --vectors "[{call: hidden_states, text: [title], model: PATH}]"

Each configuration is trained once, in OUT/NAME/SEED, and gone on with after an interruption. Figures are NDCG@10 and Recall@10 over the whole
catalogue, means and deviations over seeds; on validation rows (all of them) seen items are hidden. No test row is ranked but for the names in
--test. Item vectors are those of the section `vectors`; another source needs another OUT.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.search import Pair, over_seeds, pair_of
from rectune.baselines.sasrec_network import FILE, SasRec, load_sasrec
from rectune.baselines.sasrec_settings import SasRecSettings
from rectune.baselines.sasrec_training import train_sasrec
from rectune.baselines.scoring import list_rows
from rectune.cli import parse_overrides
from rectune.decoding.ranking import recall_and_ndcg
from rectune.log.split import Rows, Split
from rectune.recipe.load import load_recipe
from rectune.run.run import open_recipe

KINDS = VALIDATION, HIDDEN, SHOWN = "validation", "test, hidden", "test, not hidden"
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
    "sampled, initial": replace(SAMPLED, vectors="initial"),
    "sampled, projected": replace(SAMPLED, vectors="projected"),
    "sampled, null space": replace(SAMPLED, vectors="null_space"),
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
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--only", nargs="+", choices=list(CONFIGURATIONS), default=list(CONFIGURATIONS), metavar="NAME")
    parser.add_argument("--test", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--epochs", type=int, help="at most so many, however many the configuration says")
    args, rest = parser.parse_known_args()
    own = [("output_dir", str(args.out / "line"))]
    if any(CONFIGURATIONS[name].vectors for name in args.only):
        own.append(("sasrec", "{vectors: initial}"))  # so that the line makes them
    line = open_recipe(load_recipe(args.recipe, [*parse_overrides(rest), *own]))
    print(
        "| configuration | epochs, best | minutes | validation, R@10, N@10 | test hidden | test not hidden |\n|---|---|---|---|---|---|"
    )
    for name in args.only:
        vectors = None
        with line.folder.lock():
            split = line.split
            if CONFIGURATIONS[name].vectors:
                assert line.vectors is not None
                vectors = line.vectors.joined()
        found = [
            _trained(name, _capped(name, args.epochs), split, vectors, args.out, int(seed), args.device, args.test)
            for seed in args.seeds.split(",")
        ]
        told = [name, "; ".join(f"{about['epochs_trained']}, {about['best_epoch']}" for about in found)]
        told += [f"{statistics.mean(about['seconds'] for about in found) / 60:.1f}"]
        told += [over_seeds([about[key] for about in found if key in about]) for key in KINDS]
        print(f"| {' | '.join(told)} |", flush=True)
    return 0


def _capped(name: str, epochs: int | None) -> SasRecSettings:
    settings = CONFIGURATIONS[name]
    return settings if epochs is None else replace(settings, epochs=min(epochs, settings.epochs))


def _trained(
    name: str, settings: SasRecSettings, split: Split, vectors: Any, out: Path, seed: int, device: str, tested: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    place = out / "".join(c if c.isalnum() else "-" for c in name) / str(seed)
    place.mkdir(parents=True, exist_ok=True)
    written = place / "figures.json"
    if not (place / FILE).exists():
        started = time.perf_counter()
        train_sasrec(split, settings, seed=seed, device=device, vectors=vectors, folder=place).save(place)
        seconds = time.perf_counter() - started
        written.write_text(json.dumps({"seconds": seconds, "threads": torch.get_num_threads()}))
    model = load_sasrec(place)
    figures = {**json.loads(written.read_text()), **model.about, "settings": asdict(settings)}
    if VALIDATION not in figures:
        figures[VALIDATION] = _figures(model, split, split.validation)[0]
    if name in tested and HIDDEN not in figures:
        figures[HIDDEN], figures[SHOWN] = _figures(model, split, split.test)
    written.write_text(json.dumps(figures))
    return figures


def _figures(model: SasRec, split: Split, rows: Rows) -> list[Pair]:
    both = list_rows(split, rows, lambda part: model.log_probabilities(split, part), width=1)
    return [pair_of(recall_and_ndcg(one.place, 10)) for one in both]


if __name__ == "__main__":
    raise SystemExit(main())
