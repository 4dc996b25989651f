"""What each form of training examples costs and gives: one example a target, trees of a user's targets, whole windows.

    python -m benchmarks.forms PATH/TO/amazon18_scientific OUT [--recipe tiger-scientific-cpu] [--epochs 8] [--together 5] [--seed 0] [--KEY VALUE …]

The recipe's first stage is trained from the same base in each form, for so many passes over the log; a batch of `targets` or `tree` holds `--together` times as many
examples as one of `windows` holds sequences, so that steps are about as many. All are judged on the same test rows. What was stopped continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.refresh import cell, finished
from benchmarks.side_by_side import say
from rectune.cli import parse_overrides
from rectune.recipe.load import load_recipe
from rectune.run.judged import HIDDEN
from rectune.run.train import train

FORMS = ("targets", "tree", "windows")


def line_of(form: str, folder: Path) -> str:
    """One line of the table."""
    report, measured, last = finished(folder)
    found = cell(report["results"]["protocols"][HIDDEN]["tuned model"], last)
    best = [e[f"eval_ndcg@{last}"] for e in report["training"][0] if f"eval_ndcg@{last}" in e]
    at = f"{1 + best.index(max(best))} of {len(best)}" if best else "–"
    return f"| `{form}` | {measured['steps']:,} | {measured['tokens'] / 1e6:.2f} M | {measured['seconds'] / 60:.1f} | {at} | {found} |"


def run() -> int:
    """Train what is not there and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="tiger-scientific-cpu")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--together", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args, rest = parser.parse_known_args()
    plain = load_recipe(args.recipe)
    batch = int(plain.settings["stages"][0]["per_device_train_batch_size"])
    for form in FORMS:
        own: dict[str, Any] = {
            "data.path": args.source, "seed": args.seed, "output_dir": args.out / form, "stages.0.num_train_epochs": args.epochs,
            "tasks.0.examples": form, "rank.prior": "null", "sasrec": "null", "eval.shuffled_rows": 0,
            "stages.0.completion_only_loss": "false" if form == "windows" else "true",
            "stages.0.per_device_train_batch_size": batch if form == "windows" else batch * args.together,
        }  # fmt: skip
        train(load_recipe(args.recipe, [*((key, str(value)) for key, value in own.items()), *parse_overrides(rest)]))
    say("| form | steps | tokens | training, min | best epoch | R@10, N@10 |\n|---|---|---|---|---|---|")
    for form in FORMS:
        say(line_of(form, args.out / form))
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
