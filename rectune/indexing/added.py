"""Items that came after a run, with their names."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import polars as pl

from rectune.indexing.item_index import Codes, ItemIndex
from rectune.log.log import Log
from rectune.recipe.fingerprints import fingerprint


@dataclass(frozen=True)
class Added:
    """Items that were added to a run: their columns, their codes (items, levels) in the run's vocabulary, and a hash."""

    items: pl.DataFrame
    codes: Codes

    @property
    def mark(self) -> str:
        """Twelve hex digits that tell these items and names."""
        return fingerprint("added", [self.items.rows(), self.codes.tolist()], [])

    def log(self, log: Log) -> Log:
        """The log with the new items behind its own; no code of an old item changes."""
        return dataclasses.replace(log, items=pl.concat([log.items, self.items.select(log.items.columns)]))

    def index(self, index: ItemIndex) -> ItemIndex:
        """The index with the new names behind its own."""
        return dataclasses.replace(index, codes=np.vstack([index.codes, self.codes]))
