"""Rows of different lengths in one array are those of lists."""

from __future__ import annotations

import numpy as np

from rectune.runtime.ragged import Ragged, ranges, within

ROWS = [[5, 6], [], [7, 8, 9], [1]]


def test_rows_are_taken_and_put_as_in_a_list() -> None:
    made = Ragged.of(ROWS)
    assert made.lists() == ROWS
    assert made.lengths.tolist() == [2, 0, 3, 1]
    assert made.take(np.array([2, 2, 1, 0])).lists() == [ROWS[2], ROWS[2], [], ROWS[0]]
    assert made.put(np.array([0, 3]), Ragged.of([[], [4, 4, 4]])).lists() == [[], [], ROWS[2], [4, 4, 4]]
    assert Ragged.of([]).lists() == []
    assert Ragged.of([[], []]).take(np.array([1])).lists() == [[]]


def test_numbers_within_rows_and_from_places_on() -> None:
    counts = np.array([2, 0, 3])
    assert within(counts).tolist() == [0, 1, 0, 1, 2]
    assert ranges(np.array([10, 50, 3]), counts).tolist() == [10, 11, 3, 4, 5]
