"""S-DPO's files: a history, twenty candidates and the one that came next, by title."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
from rectune.data_builders.already_split import GivenRow, given_log
from rectune.data_builders.files import find_file, optional_file

from rectune.log.log import Log, warn
from rectune.log.split import PARTS, Part
from rectune.runtime.near import shown
from rectune.runtime.text_files import read_json

FILES: dict[Part, str] = {"train": "*-train.json", "validation": "*-val.json", "test": "*-test.json"}
KEYS = ("historyList", "itemList", "trueSelection")
LONGEST = 10  # items of a history in these files


def sdpo(*, path: Path, validation: float = 0.1) -> Log:
    """Read `*-train.json`, `*-val.json`, `*-test.json` (plain or .gz): `historyList` (titles, joined by '::', or a list), `itemList`, `trueSelection`.

    The authors publish no training file for LastFM. Without one the first users of `*-val.json` train, and the last `validation` share of them
    validates; the log says so. Titles are the items. The files name no users, but a row that goes on where the one before it ended is its user's
    next. Use the split `given`, the task `choose_item` and `eval: choices`. Raises ValueError naming file and row.
    """
    if not 0 < validation < 1:
        raise ValueError(f"`data.validation`: got {validation:g}; it is a share above 0 and below 1.")
    train = optional_file(path, FILES["train"])
    files = {**({"train": train} if train else {}), **{part: find_file(path, FILES[part]) for part in PARTS[1:]}}
    parts = {part: _rows(file, part) for part, file in files.items()}
    notes = {}
    if "train" not in parts:
        both = list(parts["validation"])
        users = list(dict.fromkeys(row.user for row in both))
        last = set(users[len(users) - max(1, round(len(users) * validation)) :])
        if len(last) >= len(users):
            raise ValueError(
                f"{path}: there is no training file, and the validation file has {len(users)} users, so that none are left to train beside a share of "
                f"{validation:g} that validates. Lower `data.validation`, or add `{FILES['train']}`."
            )
        parts["validation"] = (row if row.user in last else replace(row, part="train") for row in both)
        notes["training_rows_from"] = "the validation file: there is no training file"
    rows = [row for part in parts.values() for row in part]
    names = list(dict.fromkeys(item for row in rows for item in (*row.history, *(row.candidates or ()))))
    shelf = pl.DataFrame({"item_id": names, "title": names}, schema={"item_id": pl.String, "title": pl.String})
    log = given_log(rows, shelf, source=f"S-DPO {path.name}")
    if notes:
        warn(
            f"{path.name}: there is no training file (`{FILES['train']}`); {sum(row.part == 'train' for row in rows):,} rows of the validation file train.",
            log.notes,
        )
        log.notes.update(notes)
    return log


def _rows(file: Path, part: Part) -> Iterator[GivenRow]:
    data = read_json(file)
    if not isinstance(data, list):
        raise ValueError(f"{file.name}: it must hold a list of rows.")
    user, before = 0, list[str]()
    for number, row in enumerate(data, start=1):
        where = f"{file.name}: row {number}"
        if not isinstance(row, dict) or not set(KEYS) <= row.keys():
            raise ValueError(f"{where}: a row needs {', '.join(f'`{key}`' for key in KEYS)}.")
        history, offered, target = (row[key] for key in KEYS)
        history = (history.split("::") if history else []) if isinstance(history, str) else history
        for key, titles in zip(KEYS, (history, offered, [target]), strict=True):
            if not isinstance(titles, list) or not all(isinstance(title, str) and title.strip() for title in titles):
                raise ValueError(f"{where}: `{key}` must hold titles, got {shown(str(row[key])[:60])}.")
        if target not in offered:
            raise ValueError(f"{where}: `trueSelection`, {target!r}, is none of `itemList`.")
        if len(set(offered)) < len(offered):
            raise ValueError(f"{where}: `itemList` names an item twice.")
        user += history != before[-LONGEST:]
        before = [*history, target]
        yield GivenRow(part, f"{part} {user}", history, target, candidates=offered)
