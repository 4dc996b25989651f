"""Four items, three users and an index that the tests of tasks and of writers share."""

from __future__ import annotations

import numpy as np
import polars as pl

from rectune.indexing.item_index import ItemIndex, from_levels
from rectune.log.cleaning import make_log
from rectune.log.split import Split
from rectune.log.splits.leave_one_out import leave_one_out

ITEMS = pl.DataFrame(
    [
        ("a", "Green Tea", "Leaf", "Drinks, Tea", "Green tea, organic organic, smoky."),
        ("b", "Teapot", "Leaf", "Kitchen, Pots", "Porcelain, smoky."),
        ("c", "Kettle", "", "Kitchen, Kettle", ""),
        ("d", "Mystery", "", "", ""),
    ],
    schema=["item_id", "title", "brand", "categories", "description"],
    orient="row",
)
A, B, C, D = range(4)


def split_of(items: pl.DataFrame = ITEMS) -> Split:
    """Events 0-3 are u0: a b c d, events 4-7 u1: b a d c, events 8-12 u2: a c b d a; the last two of each are held out."""
    sequences = {"u0": "abcd", "u1": "badc", "u2": "acbda"}
    rows = [(user, item) for user, sequence in sequences.items() for item in sequence]
    events = pl.DataFrame(rows, schema=["user", "item"], orient="row")
    return leave_one_out(make_log(events, items, source="tea shop"))


def index() -> ItemIndex:
    return from_levels(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.int32))
