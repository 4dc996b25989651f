"""What the user touched before, the latest first."""

from __future__ import annotations

import numpy as np

from rectune.baselines.scoring import Baseline, Floats, history_matrix
from rectune.log.split import Rows, Split


def repeat_last(split: Split) -> Baseline:
    """score(i) = 0.5 ** (events since item i was last touched), 0 for items never touched."""

    def score(rows: Rows) -> Floats:
        return np.asarray(history_matrix(split, rows, 0.5).todense())

    return Baseline("repeat last", {}, score)
