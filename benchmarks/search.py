"""What was tried for `tiger-scientific-cpu`: one change of the recipe a row, judged on validation rows alone.

    python -m benchmarks.search PATH/TO/amazon18_scientific OUT [--seeds 0,1] [--only NAME …] [--section.key VALUE …]

OUT/seed-N is a run folder without a report: each change adds the stages that it needs, up to the choice of the prior's weight.
What was stopped continues, what is done is only read. No test row is ranked. `--section.key VALUE` goes to every row; the prior's
weights are 0, 40, 80 and 160 in each.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rectune.cli import parse_overrides
from rectune.line import Line
from rectune.methods.measured import FILE as MEASURED
from rectune.recipe import load_recipe
from rectune.run_ranking import prior_weight

RECIPE = "tiger-scientific-cpu"
WEIGHTS = "[0, 40, 80, 160]"
TEXT = "{call: 'rectune.vectors.texts:sentences', text: [title, brand, categories]}"
CHANGES: dict[str, dict[str, str]] = {
    "as the recipe": {},
    "index: RQ-VAE 3 x 256": {
        "index": "{call: 'rectune.indexing.rq_vae:rq_vae', levels: 3, repair: digit, sinkhorn: 0}"
    },
    "index: RQ-VAE 4 x 256": {"index": "{call: 'rectune.indexing.rq_vae:rq_vae'}"},
    "index: LETTER 4 x 256": {
        "index": "{call: 'rectune.indexing.letter:letter'}",
        "vectors": f"[{TEXT}, {{call: 'rectune.vectors.sasrec:sasrec', dimensions: 32}}]",
    },
    "index: balanced k-means 3 x 256": {"index": "{call: 'rectune.indexing.balanced_kmeans:balanced_kmeans'}"},
    "index: residual k-means 2 x 256": {
        "index": "{call: 'rectune.indexing.residual_kmeans:residual_kmeans', levels: 2, codes: 256}"
    },
    "index: a token an item": {"index": "{call: 'rectune.indexing.atomic:atomic'}"},
    "one target a sequence": {"tasks.0.examples": "targets", "stages.0.completion_only_loss": "true"},
    "attention without dropout, ReLU": {
        "model.from_scratch.attn_pdrop": "0.0",
        "model.from_scratch.activation_function": "relu",
    },
    "dropout .1": {"model.from_scratch.resid_pdrop": "0.1", "model.from_scratch.embd_pdrop": "0.1"},
    "dropout .3": {"model.from_scratch.resid_pdrop": "0.3", "model.from_scratch.embd_pdrop": "0.3"},
    "weight decay .01": {"stages.0.weight_decay": "0.01"},
    "weight decay .3": {"stages.0.weight_decay": "0.3"},
    "history 10": {"split.max_history": "10"},
    "history 50": {"split.max_history": "50", "stages.0.max_length": "256", "model.from_scratch.n_positions": "256"},
    "64 units": {"model.from_scratch.n_embd": "64"},
    "192 units": {"model.from_scratch.n_embd": "192"},
    "2 layers": {"model.from_scratch.n_layer": "2"},
    "tied embeddings": {"model.from_scratch.tie_word_embeddings": "true"},
    "40 epochs": {"stages.0.num_train_epochs": "40"},
    "a prior with SASRec": {"rank.prior.sasrec_epochs": "30"},
}


@dataclass(frozen=True)
class Found:
    """NDCG@10 on validation rows, seen items hidden: the model alone, the prior alone, both at the best weight; and seconds
    of training."""

    alone: float
    prior: float
    mix: float
    weight: float
    seconds: float


def cell(source: Path, out: Path, change: dict[str, str], seed: int, more: Sequence[tuple[str, str]]) -> Found:
    """Train one cell, or continue it, and choose its weight."""
    own = {"data.path": str(source), "output_dir": str(out), "seed": str(seed), "rank.prior.weight": WEIGHTS}
    line = Line(load_recipe(RECIPE, [*change.items(), *more, *own.items()]))
    assert line.prior is not None
    with line.folder.lock():
        line.check()
        line.check_lists()
        tried = prior_weight(line)["validation"]
        prior = json.loads((line.prior.stage.folder / "prior.json").read_text())["validation_ndcg@10"]
        seconds = json.loads((line.tuned.folder / MEASURED).read_text())["seconds"]
    best = max(tried, key=lambda entry: entry["ndcg@10"])
    return Found(tried[0]["ndcg@10"], prior, best["ndcg@10"], best["weight"], seconds)


def line_of(name: str, found: Sequence[Found]) -> str:
    """One line of the table: mean over seeds, and the spread where there are several."""

    def mean(values: Sequence[float]) -> str:
        spread = f" ± {_short(statistics.stdev(values))}" if len(values) > 1 else ""
        return _short(statistics.mean(values)) + spread

    weights = ", ".join(f"{f.weight:g}" for f in found)
    minutes = statistics.mean(f.seconds for f in found) / 60
    return (
        f"| {name} | {len(found)} | {mean([f.alone for f in found])} | {mean([f.mix for f in found])} | {weights} | "
        f"{mean([f.prior for f in found])} | {minutes:.0f} |"
    )


def _short(value: float) -> str:
    return f"{value:.4f}".lstrip("0")


def run() -> int:
    """Run the cells that were asked for and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), default=list(CHANGES), metavar="NAME")
    args, rest = parser.parse_known_args()
    seeds, more = [int(seed) for seed in args.seeds.split(",")], parse_overrides(rest)
    print("| change | seeds | alone, N@10 | with the prior | weight | prior alone | training, min |")
    print("|---|---|---|---|---|---|---|")
    for name in args.only:
        found = [cell(args.source, args.out / f"seed-{seed}", CHANGES[name], seed, more) for seed in seeds]
        print(line_of(name, found), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
