"""Vectors from a file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rectune.log.split import Split
from rectune.runtime.text_files import read_json
from rectune.vectors.item_vectors import ItemVectors, checked_vectors


def from_file(split: Split, *, path: Path, item_ids: Path | None = None) -> ItemVectors:
    """Read vectors: Parquet with the columns `item_id` and `vector`, or an array (`.npy`, `.pt`) with its ids beside it.

    The ids of an array: `item_ids`, a JSON list of item ids in the order of the rows; without it row i belongs to the item
    whose id is the number i, as in LC-Rec's and LETTER's files. Raises ValueError for an item without a vector.
    """
    if path.suffix == ".parquet":
        table = pl.read_parquet(path)
        for column in ("item_id", "vector"):
            if column not in table.columns:
                raise ValueError(f"{path.name}: no column `{column}`. It has: {', '.join(table.columns)}.")
        ids = [str(i) for i in table["item_id"].to_list()]
        try:
            values = np.array(table["vector"].to_list(), dtype=np.float32)
        except (ValueError, TypeError):
            raise ValueError(
                f"{path.name}: the column `vector` must hold lists of numbers, all equally long."
            ) from None
    else:
        values = _array(path)
        if values.ndim != 2:
            raise ValueError(
                f"{path.name}: it must hold a table of vectors (items, dimensions), got shape {values.shape}."
            )
        ids = _ids(item_ids) if item_ids else [str(i) for i in range(len(values))]
    if len(ids) != len(values):
        raise ValueError(f"{path.name}: {len(values)} vectors, but {len(ids)} item ids.")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path.name}: an item id occurs twice.")
    asked = split.log.items["item_id"].to_list()
    known = dict.fromkeys(ids)
    missing = [item_id for item_id in asked if item_id not in known]
    if missing:
        raise ValueError(f"{path.name}: no vector for item `{missing[0]}` ({len(missing)} of {len(asked)} missing).")
    row = {item_id: i for i, item_id in enumerate(ids)}
    return checked_vectors(asked, values[[row[item_id] for item_id in asked]], source=path.name)


def _array(path: Path) -> Any:
    if path.suffix == ".npy":
        try:
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
        except (ValueError, EOFError):
            raise ValueError(f"{path.name}: it is no file that numpy.save wrote of one array of numbers.") from None
    if path.suffix in (".pt", ".pth"):
        import torch

        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError):
            raise ValueError(f"{path.name}: it is no file that torch.save wrote of one tensor.") from None
        if not isinstance(loaded, torch.Tensor):
            raise ValueError(
                f"{path.name}: it must hold one tensor (items, dimensions), got a {type(loaded).__name__}."
            )
        return loaded.detach().float().numpy()
    raise ValueError(f"{path.name}: vectors are read from .parquet, .npy or .pt files.")


def _ids(path: Path) -> list[str]:
    ids = read_json(path)
    if not isinstance(ids, list):
        raise ValueError(f"{path.name}: it must be a JSON list of item ids.")
    return [str(i) for i in ids]
