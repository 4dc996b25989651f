"""RecBole's atomic files: `*.inter` and `*.item`, tab-separated, with typed headers."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from rectune.data_builders.already_split import GivenRow, given_log
from rectune.data_builders.files import find_file, optional_file, read_rows

from rectune.log.cleaning import Repeats, make_log
from rectune.log.log import Log
from rectune.log.split import Part

PARTS: dict[Part, str] = {"train": "train", "validation": "valid", "test": "test"}
USUAL = {"time": "timestamp", "rating": "rating"}
KINDS = ("token", "token_seq", "float", "float_seq")


def recbole(
    *,
    path: Path,
    user: str = "user_id",
    item: str = "item_id",
    time: str | None = USUAL["time"],
    rating: str | None = USUAL["rating"],
    title: str | None = None,
    user_core: int = 0,
    item_core: int = 0,
    repeats: Repeats = "keep",
) -> Log:
    """Read a folder of atomic files, plain or .gz. Fields are named without their type.

    `time` and `rating` are used where the file has fields of these default names; others must be there. `title` names the item field that is the title (default:
    the first one whose name holds 'title' or 'name'). A folder of benchmark files (`*.train.inter`, `*.valid.inter`, `*.test.inter`) is
    read with their own split; use the split `given`. Raises ValueError for a header without types.
    """
    if path.is_dir() and any(path.glob("*.train.inter*")):
        return _benchmark(path, user, item, title)
    file = find_file(path, "*.inter")
    log, fields = _typed(file)
    wanted = {"user": user, "item": item}
    for key, name in (("time", time), ("rating", rating)):
        if name is not None and (name in fields or name != USUAL[key]):
            wanted[key] = name
    for key, name in wanted.items():
        if name not in fields:
            raise ValueError(f"{file.name}: no field `{name}` (named by `data.{key}`). It has: {', '.join(fields)}.")
    events = log.select([pl.col(name).alias(key) for key, name in wanted.items()])
    shelf_file = optional_file(path, "*.item")
    shelf = _shelf(shelf_file, item, title) if shelf_file else None
    return make_log(
        events,
        shelf,
        source=file.name,
        user_core=user_core,
        item_core=item_core,
        repeats=repeats,
        warn_unordered="time" not in wanted,
    )


def _benchmark(path: Path, user: str, item: str, title: str | None) -> Log:
    """Rows of benchmark files: their history is the field `ITEM_list`, or without one the user's events of this and the earlier files."""
    rows: list[GivenRow] = []
    past: dict[str, list[str]] = {}
    for part, name in PARTS.items():
        file = find_file(path, f"*.{name}.inter")
        frame, fields = _typed(file)
        for key, field in (("user", user), ("item", item)):
            if field not in fields:
                raise ValueError(
                    f"{file.name}: no field `{field}` (named by `data.{key}`). It has: {', '.join(fields)}."
                )
        lists = frame[f"{item}_list"].to_list() if f"{item}_list" in fields else None
        for number, (who, target) in enumerate(zip(frame[user], frame[item], strict=True)):
            before = lists[number].split() if lists is not None else list(past.get(who, []))
            rows.append(GivenRow(part, who, before, target))
            past.setdefault(who, []).append(target)
    shelf_file = optional_file(path, "*.item")
    if shelf_file is not None:
        shelf = _shelf(shelf_file, item, title)
    else:
        names = list(dict.fromkeys(name for row in rows for name in (*row.history, row.target)))
        shelf = pl.DataFrame({"item_id": names, "title": names})
    return given_log(rows, shelf, source=f"RecBole {path.name}")


def _typed(file: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    """Read an atomic file; returns the table under plain names and each field's type."""
    frame = read_rows(file, separator="\t", quoted=False)
    fields = {}
    for column in frame.columns:
        name, _, kind = column.rpartition(":")
        if kind not in KINDS or not name:
            raise ValueError(
                f"{file.name}:1: header `{column}` has no type; RecBole writes `name:token`, `name:float` …"
            )
        fields[name] = kind
    return frame.rename({column: column.rpartition(":")[0] for column in frame.columns}), fields


def _shelf(file: Path, item: str, title: str | None) -> pl.DataFrame:
    frame, fields = _typed(file)
    if item not in fields:
        raise ValueError(f"{file.name}: no field `{item}` (named by `data.item`). It has: {', '.join(fields)}.")
    if title is None:
        likely = [name for name in fields if "title" in name] + [name for name in fields if "name" in name]
        title = "title" if "title" in fields else likely[0] if likely else None
    elif title not in fields:
        raise ValueError(f"{file.name}: no field `{title}` (named by `data.title`). It has: {', '.join(fields)}.")
    if title not in (None, "title") and "title" in frame.columns:
        frame = frame.drop("title")
    return frame.rename({item: "item_id", **({title: "title"} if title else {})})
