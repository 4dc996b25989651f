"""Vectors of items, keyed by item id, in one block for each source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.log.split import Split

FILE = "vectors.parquet"
Vectors = NDArray[np.float32]
Fitted = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ItemVectors:
    """Vectors of items. `blocks`: one array (items, dimensions) for each source; row i belongs to `item_ids[i]`. `fitted`: for each source
    the arrays that it learned from the catalogue and needs for the vectors of later items, {} for one that learns nothing."""

    item_ids: tuple[str, ...]
    blocks: tuple[Vectors, ...]
    fitted: tuple[Fitted, ...] = ()

    def __post_init__(self) -> None:
        if len(self.fitted) != len(self.blocks):
            object.__setattr__(self, "fitted", tuple({} for _ in self.blocks))

    def scales(self) -> Vectors:
        """For each block what its rows are multiplied with to have a mean squared norm of 1, (blocks,)."""
        norms = [float(np.sqrt((block**2).sum(1).mean())) for block in self.blocks]
        return np.array([1 / max(norm, 1e-12) for norm in norms], dtype=np.float32)

    def joined(self, scales: Vectors | None = None) -> Vectors:
        """All blocks side by side, each multiplied with its scale (`scales()` unless given)."""
        used = self.scales() if scales is None else scales
        return np.hstack([block * scale for block, scale in zip(self.blocks, used, strict=True)])

    def only(self, which: Sequence[int]) -> ItemVectors:
        """Some of the blocks."""
        return ItemVectors(self.item_ids, tuple(self.blocks[i] for i in which), tuple(self.fitted[i] for i in which))

    def of(self, item_ids: Sequence[str]) -> ItemVectors:
        """The vectors of some items, in their order. Raises ValueError naming the first item without a vector."""
        row = {item_id: i for i, item_id in enumerate(self.item_ids)}
        missing = [item_id for item_id in item_ids if item_id not in row]
        if missing:
            raise ValueError(
                f"`vectors`: no vector for item `{missing[0]}` ({len(missing)} of {len(item_ids)} missing)."
            )
        order = [row[item_id] for item_id in item_ids]
        return ItemVectors(tuple(item_ids), tuple(block[order] for block in self.blocks), self.fitted)

    def save(self, folder: Path) -> None:
        """Write `vectors.parquet`, a column of ids and a column for each block, and `fitted{i}.npz` for what source i learned."""
        columns = {
            f"block{i}": pl.Series(block, dtype=pl.Array(pl.Float32, block.shape[1]))
            for i, block in enumerate(self.blocks)
        }
        pl.DataFrame({"item_id": list(self.item_ids), **columns}).write_parquet(folder / FILE)
        self.save_fitted(folder)

    def save_fitted(self, folder: Path) -> None:
        """Write what the sources learned, without a vector."""
        for i, arrays in enumerate(self.fitted):
            if arrays:
                np.savez(folder / f"fitted{i}.npz", **arrays)  # type: ignore[arg-type]

    @staticmethod
    def load(folder: Path) -> ItemVectors:
        """Read what `save` wrote."""
        table = pl.read_parquet(folder / FILE)
        blocks = tuple(table[name].to_numpy().astype(np.float32) for name in table.columns if name != "item_id")
        return ItemVectors(tuple(table["item_id"].to_list()), blocks, load_fitted(folder, len(blocks)))


class VectorSource(Protocol):
    """A source of item vectors; it is given the recipe's seed and `model.device` where it names them."""

    def __call__(self, split: Split, *, seed: int = ..., device: str = ..., **keys: Any) -> ItemVectors:
        """Vectors of the items of a split; what learns from events reads training events alone."""


def load_fitted(folder: Path, sources: int) -> tuple[Fitted, ...]:
    """What so many sources learned, as `save_fitted` wrote it."""
    found: list[Fitted] = []
    for i in range(sources):
        file = folder / f"fitted{i}.npz"
        if file.exists():
            with np.load(file) as arrays:
                found.append(dict(arrays))
        else:
            found.append({})
    return tuple(found)


def checked_vectors(item_ids: Sequence[str], values: Vectors, *, source: str) -> ItemVectors:
    """Check the vectors of one source. Raises ValueError for another shape and for values that are no numbers."""
    if values.ndim != 2 or len(values) != len(item_ids):
        raise ValueError(f"{source}: {len(item_ids)} items need an array of so many rows, got shape {values.shape}.")
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"{source}: the vector of item `{item_ids[wrong[0]]}` holds values that are not numbers (NaN or infinite); "
            f"{len(wrong)} of {len(item_ids)} items do."
        )
    return ItemVectors(tuple(item_ids), (np.ascontiguousarray(values, dtype=np.float32),))


def refuse_alike(vectors: ItemVectors) -> ItemVectors:
    """The vectors of one source. Raises ValueError where they are all equal: they would tell nothing about the items."""
    for values in vectors.blocks:
        if len(values) > 1 and np.ptp(values, axis=0).max() <= 1e-6 * max(1.0, float(np.abs(values).max())):
            raise ValueError(
                f"`vectors`: all {len(values)} vectors of a source are equal, so they tell nothing about the items."
            )
    return vectors


def join(parts: Sequence[ItemVectors]) -> ItemVectors:
    """The blocks of several sources for the items of the first one, matched by item id."""
    ids = parts[0].item_ids
    fitted = tuple(arrays for part in parts for arrays in part.fitted)
    return ItemVectors(ids, tuple(block for part in parts for block in part.of(ids).blocks), fitted)
