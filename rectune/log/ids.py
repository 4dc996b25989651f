"""Ids of a log as whole numbers, piece by piece."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
SEEDS = (0, 1)  # of the hash that texts are sorted by, and of the one that tells two texts of one hash apart


class Ids:
    """Numbers for the texts of a column that comes in pieces, in the order in which they first appear.

    Texts are told apart by their hashes, which are sorted: a table of texts is looked up at random places, and of millions of ids that costs several times as
    much. Two texts that share the first hash are told apart by the second; of those the number of all but one comes after the numbers of its piece.
    """

    def __init__(self) -> None:
        # First hashes in order and their numbers, in parts of which each is more than twice the next: a small piece is put into a small part
        self._known: list[tuple[Hashes, NDArray[np.int32]]] = []
        self._seconds: Hashes = np.empty(0, dtype=np.uint64)  # the second hash, row = number, and room for more
        self._count = 0
        self._alike: dict[str, int] = {}  # texts whose first hash another one has
        self._names: list[pl.Series] = []

    def __len__(self) -> int:
        return self._count

    def encode(self, column: pl.Series) -> NDArray[np.int32]:
        """The numbers of a piece, shape (rows,); texts without nulls. Raises ValueError for more than 2**31 - 1 different ids."""
        hashes, seconds = (hashed(column, seed) for seed in SEEDS)
        order, of_sorted, starts = grouped(hashes)
        numbers = self._numbered(of_sorted[starts], order[starts], column, seconds)
        out = np.empty(len(column), dtype=np.int32)
        out[order] = np.repeat(numbers, np.diff(np.append(starts, len(order))))
        for row in np.flatnonzero(self._seconds[out] != seconds).tolist():
            out[row] = self._number_of(column[row], seconds[row])
        return out

    def stripped(self, codes: NDArray[np.int32]) -> tuple[NDArray[np.int32], pl.Series]:
        """All numbers and the texts, as they are without the white space around them: what differs in nothing else is one."""
        names = self.names()
        bare = names.str.strip_chars()
        if bare.equals(names):
            return codes, names
        ids = Ids()
        return ids.encode(bare)[codes], ids.names()

    def names(self) -> pl.Series:
        """The texts, row = number."""
        return pl.concat(self._names) if self._names else pl.Series(dtype=pl.String)

    def _numbered(
        self, hashes: Hashes, first: NDArray[np.int64], column: pl.Series, seconds: Hashes
    ) -> NDArray[np.int32]:
        """Numbers of different hashes in order, `first` the row of each in the piece; those that are new become known."""
        numbers = np.full(len(hashes), -1, dtype=np.int32)
        for known, of_known in self._known:
            at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            there = known[at] == hashes
            numbers[there] = of_known[at[there]]
        new = np.flatnonzero(numbers < 0)
        if len(new):
            new_by_row = new[np.argsort(first[new])]
            numbers[new_by_row] = self._added(column.gather(first[new_by_row]), seconds[first[new_by_row]])
            self._known.append((hashes[new], numbers[new]))
        while len(self._known) > 1 and len(self._known[-2][0]) <= 2 * len(self._known[-1][0]):
            (large, of_large), (small, of_small) = self._known[-2:]
            at = np.searchsorted(large, small)
            self._known[-2:] = [(np.insert(large, at, small), np.insert(of_large, at, of_small))]
        return numbers

    def _number_of(self, text: str, second: np.uint64) -> int:
        """The number of a text whose first hash another text has."""
        if text not in self._alike:
            self._alike[text] = int(self._added(pl.Series([text]), np.array([second]))[0])
        return self._alike[text]

    def _added(self, names: pl.Series, seconds: Hashes) -> NDArray[np.int32]:
        """The numbers of texts that are new."""
        begin, end = len(self), len(self) + len(names)
        if end > np.iinfo(np.int32).max:
            raise ValueError(f"more than {np.iinfo(np.int32).max:,} different ids.")
        if end > len(self._seconds):
            self._seconds = np.append(self._seconds, np.empty(end, dtype=np.uint64))
        self._seconds[begin:end] = seconds
        self._names.append(names)
        self._count = end
        return np.arange(begin, end, dtype=np.int32)


def hashed(column: pl.Series, seed: int) -> Hashes:
    """The hash of each text of a column."""
    return column.hash(seed).to_numpy()


def grouped(hashes: Hashes) -> tuple[NDArray[np.int64], Hashes, NDArray[np.int64]]:
    """The positions in the order of hashes, equal ones as they stand, the hashes in that order, and where each begins.

    One sort of their upper bits beside the position; the few that share those bits alone are put in order after it.
    """
    bits = max(len(hashes).bit_length(), 1)
    below = np.uint64((1 << bits) - 1)
    keys = hashes & ~below
    keys |= np.arange(len(hashes), dtype=np.uint64)
    keys.sort()
    order = (keys & below).view(np.int64)
    keys >>= np.uint64(bits)
    uppers = np.count_nonzero(keys[1:] != keys[:-1])
    found = hashes[order]
    starts = _edges(found)
    if len(starts) > uppers + 1:
        odd = keys[1:][(keys[1:] == keys[:-1]) & (found[1:] != found[:-1])]
        rows = np.flatnonzero(np.isin(keys, odd))
        some = order[rows]
        order[rows] = some[np.lexsort((some, hashes[some]))]
        found = hashes[order]
        starts = _edges(found)
    return order, found, starts


def _edges(values: Hashes) -> NDArray[np.int64]:
    """Where a value differs from the one before, the first one's place too."""
    return np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
