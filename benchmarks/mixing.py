"""Ways to put a tuned model and the run's prior together, chosen on validation rows and judged on test rows.

    python -m benchmarks.mixing RUN [--rows 4000] [--test-rows 8000] [--beams 100]

RUN is a finished run with a prior. For each row the items that the model or the prior lists first are scored by both; seen items are hidden. `one weight` is what
the search does: log p + w * prior. `by history`: another w for histories up to 3 and 7 items and longer ones. `by level`: of the mass of all items under the first code only
a part, or more than it, is added. `and chance`: log p + w * (prior + c p). `chance alone`: prior + c p. Of each the difference to the prior alone in NDCG@10: on the halves of the
validation rows that did not choose (40 random halves), and on test rows with what all validation rows choose, with a 95 % interval.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.side_by_side import say
from rectune.baselines.scoring import discounted, top_columns
from rectune.decoding.shelf import Shelf
from rectune.log.split import evenly
from rectune.methods.validation import hidden_while_choosing
from rectune.run.run import Run, open_run

Floats = NDArray[np.float64]
WEIGHTS = (10, 20, 40, 60, 80, 120, 160, 240, 320, 640, 1280)
CHANCES, PARTS = (0.03, 0.1, 0.3, 1.0, 3.0), (0.0, 0.5, 1.5, 2.0)
LONGEST = (3, 7)  # of the first and the second group of histories


@dataclass
class Scored:
    """What is known of some rows. `log_p`, `prior` (rows, candidates), -inf where a row has fewer; `first` (weights, rows, candidates): the log of the share of
    exp(w * prior) that lies under the candidate's first code; `hit`: where the target stands; `history`: its length."""

    log_p: Floats
    prior: Floats
    first: dict[int, Floats]
    hit: NDArray[np.bool_]
    history: NDArray[np.int64]

    def gain(self, score: Floats) -> Floats:
        """The NDCG@10 of each row, 0 where the target is no candidate."""
        score = np.where(np.isfinite(self.prior), score, -np.inf)
        own = np.where(self.hit, score, -np.inf).max(1, keepdims=True)
        place = ((score >= own) & ~self.hit).sum(1)  # what is scored alike stands before the target
        return np.where(np.isfinite(own[:, 0]), discounted(place), 0.0)


def scored(run: Run, part: Any, most: int, beams: int) -> Scored:
    """Some rows of a part with their candidates."""
    split, task = run["split"], run.rows_of(part)
    which = evenly(len(task), most)
    task, rows = task.take(which), getattr(split, part).take(which)
    hidden = hidden_while_choosing(task, split, rows) or [[] for _ in range(len(rows))]
    ranker = run.models["tuned"]
    listed = ranker.rank(task, Shelf(hidden=hidden)).items
    prior, codes = run["prior"], run["trie"].names()[:, 0]
    _, code = np.unique(codes, return_inverse=True)
    wide = 2 * beams
    items, scores = np.full((len(rows), wide), -1), np.full((len(rows), wide), -np.inf)
    first = {w: np.zeros((len(rows), wide)) for w in WEIGHTS}
    for at in range(len(rows)):
        values = np.asarray(prior(split, rows.take(np.array([at]))))[0]
        free = values.copy()
        free[hidden[at]] = -np.inf
        own = np.union1d(listed[at, :beams], top_columns(free[None], beams)[0])
        own = own[(own >= 0) & np.isfinite(free[np.maximum(own, 0)])]
        items[at, : len(own)], scores[at, : len(own)] = own, values[own]
        for w in WEIGHTS:
            mass = np.exp(w * (free - free.max()))
            share = np.bincount(code, mass)[code[own]] / mass.sum()
            first[w][at, : len(own)] = np.log(np.maximum(share, 1e-300))
    there = [some[some >= 0].tolist() for some in items]
    found = ranker.rank(task, Shelf(only=there))
    log_p = np.full((len(rows), wide), -np.inf)
    for at, own in enumerate(there):
        names = found.items[at]
        known = dict(zip(names[names >= 0].tolist(), found.scores[at].tolist(), strict=False))
        log_p[at, : len(own)] = [known[item] for item in own]
    lengths = np.array([len(split.seen(rows, i)) for i in range(len(rows))])
    return Scored(log_p, scores, first, items == task.target[:, None], lengths)


Way = Callable[[Scored, Any], Floats]
WAYS: dict[str, tuple[Way, list[Any]]] = {
    "one weight": (lambda s, w: s.gain(s.log_p + w * s.prior), list(WEIGHTS)),
    "by level": (
        lambda s, both: s.gain(s.log_p + both[0] * s.prior + (both[1] - 1) * s.first[both[0]]), list(product(WEIGHTS, (1.0, *PARTS))),
    ),
    "and chance": (
        lambda s, both: s.gain(s.log_p + both[0] * (s.prior + both[1] * np.exp(s.log_p))), list(product(WEIGHTS, (0.0, *CHANCES))),
    ),
    "chance alone": (lambda s, c: s.gain(s.prior + c * np.exp(s.log_p)), list(CHANCES)),
}  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--test-rows", type=int, default=8000)
    parser.add_argument("--beams", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as elsewhere:
        wide = str(2 * args.beams)
        run = open_run(args.run, [("rank.beams", wide), ("rank.k", wide)], elsewhere=Path(elsewhere))
        parts = [scored(run, part, n, args.beams) for part, n in (("validation", args.rows), ("test", args.test_rows))]
    alone = [part.gain(part.prior) for part in parts]
    say(
        f"{len(alone[0]):,} validation rows, {len(alone[1]):,} test rows; the prior alone has NDCG@10 {alone[0].mean():.4f} and {alone[1].mean():.4f}\n\n"
        "| way | chosen | other halves | test |\n|---|---|---|---|"
    )
    groups = [np.digitize(part.history, [most + 1 for most in LONGEST]) for part in parts]
    for name, (way, choices) in WAYS.items():
        found = [[way(part, choice) - own for choice in choices] for part, own in zip(parts, alone, strict=True)]
        told(name, choices, found, None)
        if name == "one weight":
            told("by history", choices, found, groups)


def told(name: str, choices: list[Any], found: list[list[Floats]], groups: list[NDArray[np.int64]] | None) -> None:
    """One line of the table. `found`: of both parts the difference of each choice on each row; `groups`: those rows that choose together."""
    gains, test = np.array(found[0]), np.array(found[1])
    own = groups or [np.zeros(gains.shape[1], dtype=np.int64), np.zeros(test.shape[1], dtype=np.int64)]

    def chosen(some: NDArray[Any]) -> list[int]:
        return [
            int(gains[:, some[own[0][some] == g]].sum(1).argmax()) for g in range(max(own[0].max(), own[1].max()) + 1)
        ]

    rng, halves, n = np.random.default_rng(0), list[float](), gains.shape[1]
    for _ in range(40):
        order = rng.permutation(n)
        for a, b in ((order[: n // 2], order[n // 2 :]), (order[n // 2 :], order[: n // 2])):
            halves.append(float(gains[np.array(chosen(a))[own[0][b]], b].mean()))
    best = chosen(np.arange(n))
    judged = test[np.array(best)[own[1]], np.arange(test.shape[1])]
    means = [judged[rng.integers(0, len(judged), len(judged))].mean() for _ in range(1000)]
    low, high = np.quantile(means, [0.025, 0.975])
    said = ", ".join(str(choices[i]) for i in best)
    say(f"| {name} | {said} | {np.mean(halves):+.4f} | {judged.mean():+.4f} [{low:+.4f}, {high:+.4f}] |")


if __name__ == "__main__":
    main()
