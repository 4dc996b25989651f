"""Where a target counts in a list."""

from __future__ import annotations

import numpy as np

from rectune.decoding.ranking import Ranking, target_ranks


def test_scores_within_a_millionth_of_the_targets_count_as_above_it() -> None:
    scores = [
        [-1.0, -2.0, -2.0 * (1 + 9e-7), -2.0 * (1 + 2e-6)],  # the target stands second, and one behind it is equal
        [-1.0, -2.0, -2.0 * (1 + 9e-7), -np.inf],  # third of three
        [-1.0, -1.0, -2.0, -np.inf],  # first of two equal ones
        [-1.0, -2.0, -3.0, -np.inf],  # not in the list
    ]
    items = np.array([[5, 7, 8, 9], [5, 8, 7, -1], [7, 5, 8, -1], [1, 2, 3, -1]], dtype=np.int32)
    ranking = Ranking(np.arange(4), items, np.array(scores, dtype=np.float32), np.ones(4, dtype=bool))
    assert target_ranks(ranking, np.full(4, 7, dtype=np.int32)).tolist() == [2, 2, 1, 4]
