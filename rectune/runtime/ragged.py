"""Rows of different lengths in one array."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Ragged(NamedTuple):
    """Row i is `values[starts[i] : starts[i + 1]]`; `starts` has shape (rows + 1,)."""

    values: NDArray[Any]
    starts: NDArray[np.int64]

    @staticmethod
    def of(rows: Sequence[Sequence[int]]) -> Ragged:
        """Rows that are lists, as int32."""
        values = np.fromiter((value for row in rows for value in row), dtype=np.int32)
        return Ragged(values, starts_of(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The length of each row, (rows,)."""
        return np.diff(self.starts)

    def lists(self) -> list[list[int]]:
        """Every row as a list."""
        values, starts = self.values.tolist(), self.starts.tolist()
        return [values[begin:end] for begin, end in pairwise(starts)]

    def take(self, rows: NDArray[np.integer]) -> Ragged:
        """Some of the rows, in that order."""
        lengths = self.lengths[rows]
        return Ragged(self.values[ranges(self.starts[rows], lengths)], starts_of(lengths))

    def put(self, rows: NDArray[np.integer], others: Ragged) -> Ragged:
        """The same with other rows at some places."""
        source = np.arange(len(self.starts) - 1)
        source[rows] = len(source) + np.arange(len(rows))
        both = np.concatenate([self.starts, len(self.values) + others.starts[1:]])
        return Ragged(np.concatenate([self.values, others.values]), both).take(source)


def starts_of(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where rows of these lengths start, and the end of the last, (rows + 1,)."""
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def within(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """0, 1, … up to each count, one after the other: [2, 0, 3] gives [0, 1, 0, 1, 2]."""
    starts = starts_of(counts)
    return np.arange(starts[-1]) - np.repeat(starts[:-1], counts)


def ranges(begin: NDArray[np.integer], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """`counts[i]` numbers from `begin[i]` on, for each i, one after the other."""
    starts = starts_of(counts)
    return np.arange(starts[-1]) + np.repeat(begin - starts[:-1], counts)
