"""The most popular items for everybody."""

from __future__ import annotations

import numpy as np

from rectune.baselines.scoring import Baseline, Floats, train_counts
from rectune.log.split import Rows, Split


def popularity(split: Split) -> Baseline:
    """score(i) = training events of item i."""
    counts = train_counts(split)

    def score(rows: Rows) -> Floats:
        return np.tile(counts, (len(rows), 1))

    return Baseline("popularity", {}, score)
