"""Ids of a log as whole numbers, piece by piece."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Ids:
    """Numbers for the texts of a column that comes in pieces, in the order in which they first appear."""

    def __init__(self) -> None:
        self._known = pl.Categories.random("rectune")
        self._table = pl.Series(
            [], dtype=pl.Categorical(self._known)
        )  # holds the texts in Polars, which drops them with their last column
        self._names: list[pl.Series] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def encode(self, column: pl.Series) -> NDArray[np.int32]:
        """The numbers of a piece, shape (rows,); texts without nulls. Raises ValueError for more than 2**31 - 1 different ids."""
        codes = column.cast(pl.Categorical(self._known)).to_physical().to_numpy()
        most = int(codes.max()) + 1 if len(codes) else 0
        if most > np.iinfo(np.int32).max:
            raise ValueError(f"more than {np.iinfo(np.int32).max:,} different ids.")
        if most > self._count:
            new = np.flatnonzero(codes >= self._count)
            at = np.empty(most - self._count, dtype=np.int64)
            at[codes[new][::-1] - self._count] = new[
                ::-1
            ]  # of repeated places the last that is written stays: the first row
            self._names.append(column.gather(at))
            self._count = most
        return codes.view(np.int32) if codes.flags.c_contiguous else codes.astype(np.int32)

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
