"""The health of every indexer on one log, as the table of docs/indexes.md.

    python -m benchmarks.indexes PATH/TO/amazon18_scientific

Reads LC-Rec's layout with item texts. Seconds are of one process; what the texts took to embed is told before the table (nothing
where they are cached), SASRec's training is left aside.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from rectune.data_builders.lc_rec import lc_rec

from rectune.indexing.atomic import atomic
from rectune.indexing.balanced_kmeans import balanced_kmeans
from rectune.indexing.category_path import category_path
from rectune.indexing.collaborative import collaborative
from rectune.indexing.health import judged
from rectune.indexing.hybrid import hybrid
from rectune.indexing.item_index import ItemIndex
from rectune.indexing.letter import letter
from rectune.indexing.random_numbers import random_numbers
from rectune.indexing.residual_kmeans import residual_kmeans
from rectune.indexing.rq_vae import rq_vae
from rectune.indexing.sequential import sequential
from rectune.log.split import Split
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.vectors.item_vectors import join
from rectune.vectors.sasrec import sasrec
from rectune.vectors.sentences import sentences

COLLABORATIVE = {"call": "collaborative"}


def indexers(split: Split) -> dict[str, Callable[[], ItemIndex]]:
    """Each indexer with the keys of its row."""
    started = time.process_time()
    text = sentences(split, text=["title", "brand", "categories"])
    print(f"texts embedded in {time.process_time() - started:.0f} CPU seconds\n")
    both = join([text, sasrec(split, dimensions=32)])
    return {
        "RQ-VAE 4 x 256, uniform mapping, re-assigned": lambda: rq_vae(split, text),
        "RQ-VAE 3 x 256, digit": lambda: rq_vae(split, text, levels=3, repair="digit", sinkhorn=0),
        "residual k-means 3 x 256, digit": lambda: residual_kmeans(split, text),
        "residual k-means 4 x 256, re-assigned": lambda: residual_kmeans(split, text, levels=4, repair="reassign"),
        "balanced residual k-means 3 x 256, digit": lambda: balanced_kmeans(split, text),
        "LETTER 4 x 256, re-assigned": lambda: letter(split, both),
        "collaborative 20 / 500": lambda: collaborative(split),
        "sequential numbers": lambda: sequential(split),
        "random numbers": lambda: random_numbers(split),
        "category path": lambda: category_path(split),
        "hybrid, collaborative and a token each": lambda: hybrid(split, base=COLLABORATIVE),
        "a token each": lambda: atomic(split),
    }


def row(name: str, seconds: float, index: ItemIndex, split: Split) -> str:
    """One line of the table."""
    health = {**index.health, **judged(index, split)}
    used = " / ".join(str(level["codes_used"]) for level in health["levels"])
    spread = " / ".join(f"{level['perplexity']:.0f}" for level in health["levels"])
    before, hit = health["colliding_items_before_repair"], health.get("colliding_test_targets", 0.0)
    pure = " / ".join("–" if p is None else f"{p:.2f}" for p in health.get("purity", [])[:3])
    return f"| {name} | {seconds:.0f} | {used} | {spread} | {before} → {health['colliding_items_after_repair']} | {hit:.1%} | {pure} |"


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = leave_one_out(lc_rec(path=parser.parse_args().folder))
    print(
        "| index | s | codes in use | perplexity | collisions | test targets hit | purity |\n|---|---|---|---|---|---|---|"
    )
    for name, fit in indexers(split).items():
        started = time.perf_counter()
        index = fit()
        print(row(name, time.perf_counter() - started, index, split), flush=True)


if __name__ == "__main__":
    main()
