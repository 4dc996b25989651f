"""Published rows that contradict themselves: recall and NDCG of one target a row bound each other.

    python -m benchmarks.published            # every row of recipes/results/published.yaml

With one relevant item, a hit at place p adds 1 / log2(p + 1) to NDCG and 1 to recall. So both rise with the length of the list; what
NDCG gains from length a to b lies between (recall gained) / log2(b + 1) and (recall gained) / log2(a + 2); and NDCG is at most recall.
Figures are rounded to four digits, which is allowed for.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).resolve().parents[1] / "recipes" / "results" / "published.yaml"
HALF = 0.5e-4  # what rounding to four digits may hide of each figure


def contradictions(lengths: Sequence[int], recall: Sequence[float], ndcg: Sequence[float]) -> list[str]:
    """What is impossible in a row, in words; empty for a row that can be.

    `lengths`: list lengths, rising; `recall` and `ndcg` at each of them, of rows with one relevant item.
    """
    found = []
    steps = [(0, 0.0, 0.0), *zip(lengths, recall, ndcg, strict=True)]
    for (before, recall_a, ndcg_a), (length, recall_b, ndcg_b) in itertools.pairwise(steps):
        gained, slack = recall_b - recall_a, 2 * HALF
        if gained < -slack:
            found.append(f"recall falls from {recall_a} at {before} to {recall_b} at {length}")
            continue
        least = (gained - slack) / math.log2(length + 1) - slack
        most = (gained + slack) / math.log2(before + 2) + slack
        if not least <= ndcg_b - ndcg_a <= most:
            found.append(
                f"from {before} to {length} recall gains {gained:.4f}, so NDCG gains {max(least, 0):.4f} to {most:.4f}, and it is {ndcg_b - ndcg_a:+.4f}"
            )
    return found


def checked(published: dict[str, Any]) -> dict[str, list[str]]:
    """'set: row' -> what is impossible, for the rows that contradict themselves."""
    out = {}
    for table in published["rows"]:
        lengths = table["lengths"]
        for name, values in table["values"].items():
            if len(values) != 2 * len(lengths):
                raise ValueError(f"{table['set']}: {name} has {len(values)} values, not {2 * len(lengths)}.")
            if wrong := contradictions(lengths, values[: len(lengths)], values[len(lengths) :]):
                out[f"{table['set']}: {name}"] = wrong
    return out


def main() -> int:
    """Print the rows that contradict themselves."""
    published = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    rows = sum(len(table["values"]) for table in published["rows"])
    found = checked(published)
    for name, wrong in found.items():
        print(f"{name}: {'; '.join(wrong)}")
    print(f"{len(found)} of {rows} rows contradict themselves")
    return 0 if set(found) == set(published["known"]) else 1


if __name__ == "__main__":
    sys.exit(main())
