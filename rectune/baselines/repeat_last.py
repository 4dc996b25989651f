"""What the user touched before, the latest first."""

from __future__ import annotations

import numpy as np

from rectune.baselines.scoring import Baseline, Floats, events_since
from rectune.log.split import Rows, Split


def repeat_last(split: Split) -> Baseline:
    """score(i) = 0.5 ** (events since item i was last touched), 0 for items never touched.

    Items never touched are equal: a target among them counts as the last of them, and lists hold them in the order of the catalogue.
    Beyond 1,000 events, where a power of 0.5 is no number above 0 for long, the score falls as one over the events since, so that touched
    items keep their order before the rest.
    """

    def score(rows: Rows) -> Floats:
        since = events_since(split, rows)
        since.data = np.maximum(0.5**since.data, 0.5**1000 / (since.data + 1))
        return np.asarray(since.todense())

    return Baseline("repeat last", {}, score)
