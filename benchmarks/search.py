"""What was tried for a recipe: one change of it a row, judged on validation rows alone, seen items hidden.

    python -m benchmarks.search PATH/TO/amazon18_scientific OUT [--recipe tiger-scientific-cpu] [--seeds 0,1] [--only NAME …]
        [--section.key VALUE …]

OUT/seed-N is a run folder without a report: each change adds the stages that it needs, up to the choice of the prior's weight.
What was stopped continues, what is done is only read. No test row is ranked. `--section.key VALUE` goes to every row.
`rank.prior.rows` says on how many rows; Markov and the prior alone stand on the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rectune.baselines.markov import markov
from rectune.baselines.scoring import list_rows
from rectune.cli import parse_overrides
from rectune.decoding.ranking import chosen_by, recall_and_ndcg
from rectune.log.split import evenly
from rectune.methods.measured import FILE as MEASURED
from rectune.recipe.load import load_recipe
from rectune.run.check import check
from rectune.run.rankings import prior_weight
from rectune.run.run import open_recipe

TEXT = "{call: sentences, text: [title, brand, categories]}"
CHANGES: dict[str, dict[str, str]] = {
    "as the recipe": {},
    "index: RQ-VAE 3 x 256": {"index": "{call: rq_vae, levels: 3, repair: digit, sinkhorn: 0}"},
    "index: RQ-VAE 4 x 256": {"index": "{call: rq_vae}"},
    "index: LETTER 4 x 256": {
        "index": "{call: letter}",
        "vectors": f"[{TEXT}, {{call: sasrec, dimensions: 32}}]",
    },
    "index: balanced k-means 3 x 256": {"index": "{call: balanced_kmeans}"},
    "index: residual k-means 2 x 256": {"index": "{call: residual_kmeans, levels: 2, codes: 256}"},
    "index: a token an item": {"index": "{call: atomic}"},
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
    "128 units": {"model.from_scratch.n_embd": "128"},
    "4 layers": {"model.from_scratch.n_layer": "4"},
    "tied embeddings": {"model.from_scratch.tie_word_embeddings": "true"},
    "40 epochs": {"stages.0.num_train_epochs": "40"},
    "a prior without SASRec": {"rank.prior.sasrec": "false"},
}


Pair = tuple[float, float]  # Recall@10, NDCG@10


@dataclass(frozen=True)
class Found:
    """Figures on validation rows: the model alone, both at the best weight, and what needs no model; seconds of training."""

    alone: Pair
    mix: Pair
    weight: float
    markov: Pair
    prior: Pair
    seconds: float


def cell(recipe: str, source: Path, out: Path, change: dict[str, str], seed: int, more: list[tuple[str, str]]) -> Found:
    """Train one cell, or continue it, and choose its weight."""
    own = {"data.path": str(source), "output_dir": str(out), "seed": str(seed)}
    line = open_recipe(load_recipe(recipe, [*change.items(), *more, *own.items()]))
    assert line.asked.prior is not None
    if 0 not in line.asked.prior.weights or len(line.asked.prior.weights) < 2:
        raise SystemExit(
            "`rank.prior.weight` must hold 0, the model alone, and another weight, e.g. --rank.prior.weight '[0, 80]'"
        )
    with line.folder.lock():
        check(line)
        tried = prior_weight(line)["validation"]
        split = line.split
        rows = split.validation.take(evenly(len(split.validation), line.asked.prior.rows))
        others = [
            pair_of(recall_and_ndcg(list_rows(split, rows, score, width=1)[0].place, 10))
            for score in (markov(split).score, partial(line["prior"], split))
        ]
        seconds = json.loads((line.tuned.folder / MEASURED).read_text())["seconds"]
    alone = next(entry for entry in tried if entry["weight"] == 0)
    best = max(tried, key=lambda entry: entry[chosen_by(line.asked.rank.beams)])
    return Found(pair_of(alone), pair_of(best), best["weight"], others[0], others[1], seconds)


def line_of(name: str, found: Sequence[Found]) -> str:
    """One line of the table: means over seeds and the spread of several; the prior and Markov of the first seed."""

    weights = ", ".join(f"{f.weight:g}" for f in found)
    minutes = statistics.mean(f.seconds for f in found) / 60
    columns = [over_seeds([f.alone for f in found]), over_seeds([f.mix for f in found]), weights]
    columns += [over_seeds([f.prior for f in found[:1]]), over_seeds([f.markov for f in found[:1]]), f"{minutes:.0f}"]
    return f"| {name} | {len(found)} | {' | '.join(columns)} |"


def over_seeds(pairs: Sequence[Pair]) -> str:
    """Recall and NDCG in words: means, and the deviations of several."""
    both = []
    for values in zip(*pairs, strict=True):
        spread = f" ± {_short(statistics.stdev(values))}" if len(values) > 1 else ""
        both.append(_short(statistics.mean(values)) + spread)
    return ", ".join(both)


def pair_of(found: dict[str, float]) -> Pair:
    """What `recall_and_ndcg` found."""
    return found["recall@10"], found["ndcg@10"]


def _short(value: float) -> str:
    return f"{value:.4f}".lstrip("0")


def run() -> int:
    """Run the cells that were asked for and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="tiger-scientific-cpu")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), default=list(CHANGES), metavar="NAME")
    args, rest = parser.parse_known_args()
    seeds, more = [int(seed) for seed in args.seeds.split(",")], parse_overrides(rest)
    print("| change | seeds | alone, R@10, N@10 | with the prior | weight | prior alone | Markov | training, min |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.only:
        found = [cell(args.recipe, args.source, args.out / f"seed-{seed}", CHANGES[name], seed, more) for seed in seeds]
        print(line_of(name, found), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
