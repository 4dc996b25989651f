"""A log whose events are numbers already: arrays in a folder, as `Log.save` or a cluster wrote them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from rectune.log.item_table import clean_items, with_titles
from rectune.log.log import Log
from rectune.log.shown import Shown


def encoded(*, path: Path) -> Log:
    """Read a folder of `user.npy`, `item.npy`, `items.parquet` and `users.parquet`, and `time.npy` and `rating.npy` where they are there.

    Users and items of events are rows of `users.parquet` (`user_id`) and `items.parquet` (`item_id`, `title`, other texts); events stand user
    after user, oldest first. `shown-user.npy`, `shown-item.npy` and `shown-time.npy`, where they are there, say what users were
    shown. Arrays are mapped, not read. Raises ValueError where something of this does not hold.
    """
    if not path.is_dir():
        raise ValueError(f"`data.path`: `{path}` is no folder of an encoded log.")
    users, items = _table(path, "users", "user_id"), _table(path, "items", "item_id")
    texts = with_titles(clean_items(items, path.name), path.name, {})
    return Log.encoded(
        path, texts if texts.height == items.height else items, users["user_id"].cast(pl.String), source=path.name,
        shown=Shown.load(path, path.name),
    )  # fmt: skip


def _table(folder: Path, name: str, column: str) -> pl.DataFrame:
    file = folder / f"{name}.parquet"
    try:
        table = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{file}: not a readable Parquet file ({' '.join(str(error).split())[:200]}).") from None
    if column not in table.columns:
        raise ValueError(f"{file}: no column `{column}`. It has: {', '.join(table.columns)}.")
    return table
