"""Sampled candidates: for each test row a few items beside the target, for papers that rank no more. Drawn once, and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.log.split import Split, user_ranges
from rectune.recipe.box import Box, Held
from rectune.runtime.seeded import seeded

FILE = "candidates.parquet"
Candidates = list[NDArray[np.int32]]  # of each test row the target, then the drawn items


def candidates_box(count: int, seed: int) -> Box:
    """`count` items a test row that its user never touched, held-out events included, beside the target; each row's draw depends on `seed`
    and the row alone."""

    def build(held: Held, folder: Path) -> None:
        split: Split = held["split"]
        ids = split.log.items["item_id"].to_list()
        drawn = draw(split, count, seed)
        rows = {
            "row": split.test.row,
            "target": [ids[one[0]] for one in drawn],
            "drawn": [[ids[i] for i in one[1:]] for one in drawn],
        }
        pl.DataFrame(rows, schema={"row": pl.Int64, "target": pl.String, "drawn": pl.List(pl.String)}).write_parquet(
            folder / FILE
        )

    def load(held: Held, folder: Path) -> Candidates:
        code = {item_id: i for i, item_id in enumerate(held["split"].log.items["item_id"].to_list())}
        kept = pl.read_parquet(folder / FILE)
        pairs = zip(kept["target"].to_list(), kept["drawn"].to_list(), strict=True)
        return [np.array([code[target], *(code[item] for item in items)], dtype=np.int32) for target, items in pairs]

    return Box("candidates", ("split",), lambda: {"count": count, "seed": seed}, build, load, (draw,))


def draw(split: Split, count: int, seed: int) -> Candidates:
    """Of each test row the target and `count` other items, or all that its user never touched where these are fewer."""
    log, test = split.log, split.test
    begins, ends = user_ranges(log)
    targets = split.targets(test)
    found = []
    for i in range(len(test)):
        begin, end = begins[test.user[i]], ends[test.user[i]]
        free = np.ones(log.n_items, dtype=bool)
        free[log.item_codes[begin:end]] = False
        free[targets[i]] = False
        known = np.flatnonzero(free)
        drawn = seeded(seed, "candidates", int(test.row[i])).choice(known, min(count, len(known)), replace=False)
        found.append(np.array([targets[i], *drawn], dtype=np.int32))
    return found
