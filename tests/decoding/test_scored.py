"""Lists out of whole scores: what may be listed, what is known beforehand, and ties."""

from __future__ import annotations

import numpy as np
import pytest

from rectune.decoding.scored import ranking_of
from rectune.decoding.shelf import Shelf
from rectune.tasks.rows import TaskRows

SCORES = np.array([[3.0, 1.0, 2.0, 2.0], [0.0, 1.0, 2.0, 3.0]])
ROWS = TaskRows(np.array([7, 9]), lambda i: {}, "item", np.array([0, 1]))


@pytest.mark.parametrize(
    ("shelf", "items"),
    [
        (Shelf(), [[0, 2, 3], [3, 2, 1]]),
        (Shelf(hidden=[[0], [3, 2]]), [[2, 3, 1], [1, 0, -1]]),
        (Shelf(only=[[1, 3], []]), [[3, 1, -1], [-1, -1, -1]]),
        (Shelf(allowed=np.array([False, True, True, False])), [[2, 1, -1], [2, 1, -1]]),
        (Shelf(prior=lambda which: np.array([[0, 9, 0, 0], [9, 0, 0, 0.0]], dtype=np.float32)[which]), [[1, 0, 2], [0, 3, 2]]),
        (Shelf(prior=lambda which: np.full((2, 4), 1, dtype=np.float32), hidden=[[0], []]), [[2, 3, 1], [3, 2, 1]]),
    ],
)  # fmt: skip
def test_the_shelf_counts(shelf: Shelf, items: list[list[int]]) -> None:
    found = ranking_of(SCORES, ROWS, shelf, width=3)
    assert found.items.tolist() == items
    assert found.row.tolist() == [7, 9]
    assert found.exact.all()
    assert (np.isneginf(found.scores) == (found.items < 0)).all()
    assert SCORES[0, 0] == 3.0  # what was given is not written into


def test_nothing_that_may_be_listed_is_an_error() -> None:
    with pytest.raises(ValueError, match="no item may be listed"):
        ranking_of(SCORES, ROWS, Shelf(allowed=np.zeros(4, dtype=bool)), width=3)
