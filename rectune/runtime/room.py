"""How much memory a step may take, and matrices that lie in a file where they are larger."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GB = 2**30
MOST_ROWS, LEAST_ROWS = 512, 64
CELL = (
    64  # bytes that the score of an item for a row takes: three parts, their sum, a copy, what finds the largest ones
)
BLOCKS, MATRIX = 0.25, 0.625  # shares of the room: of scores worked on at a time, of what is learned and kept


@dataclass(frozen=True)
class Room:
    """The memory that a step may take above what is there at its start, in `gigabytes` of 2^30 bytes (`eval.memory`). No figure depends on it.

    `folder`: where a matrix lies meanwhile that is larger; None: the system's folder for temporary files. Raises ValueError for no room.
    """

    gigabytes: float = 2.0
    folder: Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.gigabytes, bool) or not isinstance(self.gigabytes, int | float) or not self.gigabytes > 0:
            raise ValueError(
                f"`eval.memory` is in GB and must be a number above 0, got {self.gigabytes!r}. Leave it out for 2."
            )

    @property
    def of_blocks(self) -> int:
        """Bytes of what is worked on at a time."""
        return int(BLOCKS * self.gigabytes * GB)

    @property
    def of_matrix(self) -> int:
        """Bytes of a matrix that is kept in memory."""
        return int(MATRIX * self.gigabytes * GB)

    def rows(self, items: int) -> int:
        """How many rows of scores of `items` are worked on at a time, from 64 to 512 and a multiple of 64, by which SASRec batches them.

        Raises ValueError where 64 are too many.
        """
        most = self.of_blocks // (CELL * max(items, 1)) // LEAST_ROWS * LEAST_ROWS
        if most < LEAST_ROWS:
            needed = CELL * items * LEAST_ROWS / BLOCKS / GB
            raise ValueError(
                f"`eval.memory` is {self.gigabytes:g} GB, but scores of {items:,} items for {LEAST_ROWS} rows take a quarter of "
                f"{needed:.2g} GB. Give `eval.memory: {needed * 1.05:.2g}` or more."
            )
        return min(MOST_ROWS, most)

    def blocks(self, count: int, items: int) -> Iterator[NDArray[np.int64]]:
        """The positions 0 … count - 1 in blocks of `rows(items)`."""
        step = self.rows(items)
        return (np.arange(a, min(a + step, count)) for a in range(0, count, step))


class Matrix:
    """A matrix (rows, width) of zeros at first: in memory where the room allows it, else in a file without a name, which goes with it."""

    def __init__(self, rows: int, width: int, dtype: Any, room: Room) -> None:
        """Raises OSError where the disk has no place for the file."""
        self.shape, self.dtype = (rows, width), np.dtype(dtype)
        size = rows * width * self.dtype.itemsize
        self._held: NDArray[Any] | None = None
        self._file: Any = None
        if self.fits(size, room):
            self._held = np.zeros(self.shape, self.dtype)
            return
        self._file = tempfile.TemporaryFile(dir=room.folder, buffering=0)  # noqa: SIM115  as long as the matrix
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file.fileno(), 0, size)  # said now, not by a signal in the middle
        else:
            self._file.truncate(size)

    @staticmethod
    def fits(size: int, room: Room) -> bool:
        """Whether a matrix of `size` bytes lies in memory."""
        return size <= room.of_matrix

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def in_memory(self) -> bool:
        """Whether it lies in memory."""
        return self._held is not None

    def window(self, begin: int, end: int) -> NDArray[Any]:
        """Rows `begin` to `end`, to be read and written; of a file only what is touched is in memory, until the window is let go."""
        if self._held is not None:
            return self._held[begin:end]
        width = self.shape[1]
        offset = begin * width * self.dtype.itemsize
        shape = (min(end, len(self)) - begin, width)
        return np.memmap(self._file, self.dtype, "r+", offset, shape)

    def rows(self, which: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """A copy of some rows, (len(which), width)."""
        if self._held is not None:
            return np.asarray(self._held[which])
        out = np.empty((len(which), self.shape[1]), self.dtype)
        for place, row in enumerate(which.tolist()):
            self._file.seek(row * out[place].nbytes)
            self._file.readinto(out[place])
        return out
