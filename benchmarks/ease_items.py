"""What EASE and item-KNN lose where they learn from the most popular items only, as they do above `eval.ease_items`.

    python -m benchmarks.ease_items RECIPE [--items 12101 6000 3000] [--KEY VALUE …]

All users' test rows of the recipe's log, seen items hidden; settings are chosen on validation rows for each number of items.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.side_by_side import say
from rectune.baselines.ease import ease, ease_with_markov
from rectune.baselines.item_knn import item_knn
from rectune.baselines.markov import markov
from rectune.baselines.scoring import Baseline, list_rows
from rectune.cli import parse_overrides
from rectune.decoding.ranking import recall_and_ndcg
from rectune.log.split import Split
from rectune.recipe.load import load_recipe
from rectune.run.run import open_recipe
from rectune.runtime.room import Room

K = 10


def line_of(split: Split, baseline: Baseline, seconds: float, room: Room) -> str:
    """One line of the table."""
    hidden, _ = list_rows(split, split.test, baseline.score, width=K, room=room)
    found = recall_and_ndcg(hidden.place, K, k=K)
    cells = ", ".join(f"{found[f'{name}@{K}']:.4f}".lstrip("0") for name in ("recall", "ndcg"))
    return f"| {baseline.name} | {cells} | {seconds:.0f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--items", type=int, nargs="+", default=[12_101, 6_000, 3_000])
    args, rest = parser.parse_known_args()
    split, room = open_recipe(load_recipe(args.recipe, parse_overrides(rest))).split, Room(2)
    say(
        f"{split.log.n_users:,} users, {split.log.n_items:,} items\n\n| row | R@{K}, N@{K} | CPU s, choosing |\n|---|---|---|"
    )
    say(line_of(split, markov(split), 0, room))
    for most in args.items:
        start = time.process_time()
        plain = ease(split, most_items=most, room=room)
        taken = time.process_time() - start
        say(line_of(split, plain, taken, room))
        start = time.process_time()
        mixed = ease_with_markov(split, plain, room=room)
        say(line_of(split, mixed, taken + time.process_time() - start, room))
        start = time.process_time()
        near = item_knn(split, most_items=most, room=room)
        say(line_of(split, near, time.process_time() - start, room))


if __name__ == "__main__":
    main()
