"""What each stage of a training added, on a sample of the test rows: the model after each of them, alone and beside the prior.

    python -m benchmarks.stages RECIPE [--rows 2000] [--forms alone prior] [--section.key VALUE …]

RECIPE and keys as `rectune train` was given them; what it built is read, and a stage that is missing is trained. Rows are spread evenly over the test rows, lists are of
`rank.beams` items, the prior has the first of `rank.prior.weight`. Differences are to the first stage, paired over users, with 95 % intervals. Recall of the deepest place is that of `rank.beams`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rectune.eval.intervals import Bootstrap
from rectune.eval.metrics.coverage import coverage
from rectune.eval.sentences import interval, number

from benchmarks.side_by_side import say, say_versions
from rectune.baselines.scoring import discounted
from rectune.cli import parse_overrides
from rectune.decoding.ranking import target_ranks
from rectune.decoding.shelf import Shelf
from rectune.log.split import evenly
from rectune.recipe.load import load_recipe
from rectune.run.prior_box import weighted
from rectune.run.run import Run, open_recipe

FORMS = ("alone", "prior")
Values = dict[str, NDArray[np.float64]]


def values_of(place: NDArray[np.int64], deep: int) -> Values:
    """Each metric of each row, for targets at `place` (rows,)."""
    recalls = {f"recall@{k}": (place < k).astype(np.float64) for k in sorted({1, 10, deep})}
    return {**recalls, "ndcg@10": np.where(place < 10, discounted(place), 0.0)}


def rows_of(run: Run, most: int, asked: Sequence[str]) -> Iterator[list[str]]:
    """The rows of the table: form and protocol, stage, then every metric with its difference."""
    chosen = evenly(len(run.split.test), most)
    test, task, deep = run.split.test.take(chosen), run.rows.take(chosen), run.asked.rank.beams
    targets, bootstrap = run.split.targets(test), Bootstrap(test.user)
    seen = [run.split.seen(test, i).tolist() for i in range(len(test))]
    models = {t.name: t.method.load(run.loading, run.place(t.name).folder / "model") for t in run.asked.trainings}
    forms: list[tuple[str, float]] = [("alone", 0.0)] if "alone" in asked else []
    if run.asked.prior is not None and "prior" in asked:
        forms.append(("with the prior", run.asked.prior.weights[0]))
    for form, weight in forms:
        prior = weighted(run["prior"], run.split, test, weight) if weight else None
        for protocol, hidden in (("hidden", seen), ("not hidden", None)):
            first: Values | None = None
            for name, model in models.items():
                ranking = model.rank(task, Shelf(hidden=hidden, prior=prior))
                values = values_of(target_ranks(ranking, targets), deep)
                yield [
                    f"{form}, {protocol}",
                    name,
                    *_cells(values, first, bootstrap),
                    number(coverage(ranking.items, run.log.n_items, deep)),
                ]
                first = first or values


def _cells(values: Values, first: Values | None, bootstrap: Bootstrap) -> list[str]:
    cells: list[Any] = []
    for metric, each in values.items():
        change = "" if first is None else f" ({interval(bootstrap.mean(each - first[metric]), sign=True)})"
        cells.append(f"{number(float(each.mean()))}{change}")
    return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a recipe file, or the name of a bundled recipe")
    parser.add_argument("--rows", type=int, default=2000, help="test rows")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    args, rest = parser.parse_known_args()
    run = open_recipe(load_recipe(args.recipe, parse_overrides(rest)))
    say_versions()
    head = ["", "", *values_of(np.zeros(1, dtype=np.int64), run.asked.rank.beams), f"coverage@{run.asked.rank.beams}"]
    say(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for cells in rows_of(run, args.rows, args.forms):
        say(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
