"""Lists that were made elsewhere, to be judged by the protocols of a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rectune.decoding.ranking import Ranking
from rectune.log.split import Split
from rectune.run.judged import HIDDEN, SHOWN
from rectune.runtime.near import near, shown
from rectune.runtime.text_files import read_json_lines

Both = dict[str, Ranking]  # protocol -> lists


def read_lists(files: Sequence[str | Path], split: Split) -> dict[str, Both]:
    """Files of lists as rankings of the test rows, by the file's name without its ending.

    A file holds JSON lines, `{"user": ID, "items": [ID, …]}` with the best first and, where scores may be equal, `"scores": [number, …]`;
    what `rectune recommend --users FILE --json` prints is read as well. With seen items hidden, items of the history are taken out of a list.
    Raises ValueError for two files of one name, a user who is missing, unknown or listed twice, an item that is
    unknown or listed twice, scores that rise, and a split with several test rows a user.
    """
    users = split.test.user
    if files and len(np.unique(users)) < len(users):
        raise ValueError(
            f"`--lists`: a list is told by its user, but this split has {len(users):,} test rows of {len(np.unique(users)):,} users."
        )
    found: dict[str, Both] = {}
    for file in map(Path, files):
        name = file.name.partition(".")[0]
        if name in found:
            raise ValueError(f"`--lists {file}`: another file is called `{name}`, too. Rename one of them.")
        found[name] = _both(file, split)
    return found


def _both(file: Path, split: Split) -> Both:
    rows = split.test
    code = {item_id: i for i, item_id in enumerate(split.log.items["item_id"].to_list())}
    row_of = {split.log.users[int(user)]: i for i, user in enumerate(rows.user)}
    known: set[str] = set(split.log.users.to_list())
    lists: list[tuple[list[int], list[float]] | None] = [None] * len(rows)
    for where, user, items, scores in _entries(file):
        if user not in row_of:
            if user in known:
                continue  # a user without a test row
            raise ValueError(f"{where}: the log has no user {shown(user)}.")
        if lists[row_of[user]] is not None:
            raise ValueError(f"{where}: user {shown(user)} has a list already.")
        unknown = next((item for item in items if item not in code), None)
        if unknown is not None:
            raise ValueError(f"{where}: the catalogue has no item {shown(unknown)}.{near(unknown, code)}")
        if len(set(items)) < len(items):
            twice = next(item for i, item in enumerate(items) if item in items[:i])
            raise ValueError(f"{where}: item {shown(twice)} is listed twice.")
        lists[row_of[user]] = [code[item] for item in items], scores
    missing = [user for user, i in row_of.items() if lists[i] is None]
    if missing:
        raise ValueError(
            f"{file.name}: {len(missing):,} of {len(rows):,} test users have no list, such as {shown(missing[0])}. Give each one, [] where "
            "nothing is recommended."
        )
    whole = [entry for entry in lists if entry is not None]
    seen = [set(split.seen(rows, i).tolist()) for i in range(len(rows))]
    return {
        HIDDEN: _ranking([_without(entry, hidden) for entry, hidden in zip(whole, seen, strict=True)], rows.row),
        SHOWN: _ranking(whole, rows.row),
    }


def _without(entry: tuple[list[int], list[float]], hidden: set[int]) -> tuple[list[int], list[float]]:
    kept = [(item, score) for item, score in zip(*entry, strict=True) if item not in hidden]
    return [item for item, _ in kept], [score for _, score in kept]


def _ranking(lists: Sequence[tuple[list[int], list[float]]], row: Any) -> Ranking:
    width = max([1, *(len(items) for items, _ in lists)])
    items = np.full((len(lists), width), -1, dtype=np.int32)
    scores = np.full((len(lists), width), -np.inf, dtype=np.float32)
    for i, (listed, given) in enumerate(lists):
        items[i, : len(listed)] = listed
        order = {score: -float(place) for place, score in enumerate(dict.fromkeys(given))}
        scores[i, : len(listed)] = [order[score] for score in given]  # ranks, as float32 cannot tell all scores apart
    return Ranking(row, items, scores, np.zeros(len(lists), dtype=bool))


def _entries(file: Path) -> Iterator[tuple[str, str, list[str], list[float]]]:
    """Place in the file, user, items and scores of each line; items without scores score less and less."""
    for number, entry in read_json_lines(file):
        where = f"{file.name}:{number}"
        if "user" not in entry or not isinstance(entry.get("items"), list):
            raise ValueError(f'{where}: got {shown(entry)}, but a line is {{"user": ID, "items": [ID, …]}}.')
        listed = entry["items"]
        if listed and all(isinstance(one, dict) and "item_id" in one for one in listed):
            scores = [one.get("score") for one in listed]
            items = [str(one["item_id"]) for one in listed]
        else:
            scores = entry.get("scores") or [-float(place) for place in range(len(listed))]
            items = [str(one) for one in listed]
        if len(scores) != len(items) or not all(_is_number(score) for score in scores):
            raise ValueError(f"{where}: {len(items)} items need as many scores, which are numbers.")
        if any(after > before for before, after in itertools.pairwise(scores)):
            raise ValueError(f"{where}: the scores rise along the list, but the best item comes first.")
        yield where, str(entry["user"]), items, [float(score) for score in scores]


def _is_number(score: Any) -> bool:
    return isinstance(score, int | float) and not isinstance(score, bool) and bool(np.isfinite(score))
