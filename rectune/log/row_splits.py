"""Splits for tasks that judge one row at a time: TALLRec's own rule, and one with users disjoint; fewer training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rectune.log.log import Log
from rectune.log.split import PARTS, Ints, Part, Split, rows_of, user_bounds


def tallrec_movie(
    log: Log, *, history: int = 10, rows: int = 10_000, validation: float = 0.1, test: float = 0.1
) -> Split:
    """TALLRec's rule for MovieLens 100K: the last `rows` windows of a list that goes user after user, cut by position.

    Every event with `history` earlier ones of its user is a window; users stand in the order of their first line in the
    source, events of a user in time order. On MovieLens 100K this gives the 10,000 rows that its authors ship. It is
    neither a split in time nor one by users: one user stands on both sides of each cut, and the parts' times overlap.
    Source: Bao et al., RecSys 2023, `preprocess_movie.py`. Raises ValueError when there are too few windows.
    """
    first, _ = user_bounds(log)
    position = np.arange(log.interactions.height)
    whole = position[position - first >= history]
    if len(whole) < rows:
        raise ValueError(
            f"{log.source}: it has {len(whole)} events with {history} earlier ones of their user, but `rows` asks for {rows}."
        )
    chosen = whole[-rows:]
    ends = [round(rows * (1 - validation - test)), round(rows * (1 - test)), rows]
    parts = dict(zip(PARTS, np.split(chosen, ends[:-1]), strict=True))
    _refuse_empty(log, parts)
    notes = {"rule": "tallrec_movie", "max_history": history, "sound": "no: neither split in time nor by users"}
    return _split(log, parts, first, history, notes)


def by_user(
    log: Log,
    *,
    max_history: int = 10,
    validation: float = 0.1,
    test: float = 0.1,
    min_history: int = 3,
    rows_per_user: int | None = None,
    seed: int = 0,
) -> Split:
    """Each user is in one part only, drawn at random; every event with `min_history` earlier ones is a row.

    `rows_per_user` keeps only the last ones of each user (1 is TALLRec's rule for Book-Crossing). It says how a model does
    for people it has never met; times of the parts overlap. Raises ValueError when a part has no row.
    """
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise ValueError(
            f"`validation` ({validation}) and `test` ({test}) must be shares above 0 that sum to less than 1."
        )
    first, end = user_bounds(log)
    position = np.arange(log.interactions.height)
    enough = position - first >= max(min_history, 1)
    late = enough if rows_per_user is None else enough & (end - position <= rows_per_user)
    users = np.unique(log.user_codes[late])
    drawn = np.random.default_rng(seed).permutation(users)
    ends = [round(len(users) * (1 - validation - test)), round(len(users) * (1 - test))]
    parts = {
        name: position[late & np.isin(log.user_codes, some)]
        for name, some in zip(PARTS, np.split(drawn, ends), strict=True)
    }
    _refuse_empty(log, parts)
    left_out = int(log.n_users - len(users))
    notes = {"rule": "by_user", "max_history": max_history, "sound": "users disjoint", "users_left_out": left_out}
    return _split(log, parts, first, max_history, notes)


def few_shots(split: Split, shots: int, seed: int) -> Split:
    """The same split with `shots` training rows, drawn at random; with one seed the smaller sets lie in the larger ones.

    Index and baselines see only the events of those rows. Raises ValueError when there are fewer.
    """
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise ValueError(f"`split.shots` must be a whole number from 1 on, or null for all rows; got {shots!r}.")
    if shots > len(split.train):
        raise ValueError(
            f"`split.shots` is {shots}, but there are {len(split.train)} training rows. Lower it, or give null for all of them."
        )
    kept = np.sort(np.random.default_rng(seed).permutation(len(split.train))[:shots])
    train = split.train.take(kept)
    events = np.unique(np.concatenate([np.arange(a, b + 1) for a, b in zip(train.start, train.target, strict=True)]))
    notes = {**split.notes, "shots": shots, "training_rows_of_the_split": len(split.train)}
    return replace(split, train=train, train_events=events, notes=notes)


def _split(log: Log, parts: Mapping[Part, Any], first: Ints, history: int, notes: dict[str, Any]) -> Split:
    rows = {name: rows_of(log, events, first, history) for name, events in parts.items()}
    train = rows["train"]
    seen = np.unique(np.concatenate([np.arange(a, b + 1) for a, b in zip(train.start, train.target, strict=True)]))
    users = {name: np.unique(part.user) for name, part in rows.items()}
    shared = {
        f"{a} and {b}": len(np.intersect1d(users[a], users[b])) for a, b in (PARTS[:2], PARTS[1:], (PARTS[0], PARTS[2]))
    }
    about = {**notes, "users": {name: len(some) for name, some in users.items()}, "users_in_both": shared}
    return Split(log=log, train_events=seen, notes=about, **rows)


def _refuse_empty(log: Log, parts: Mapping[Part, Any]) -> None:
    for name, events in parts.items():
        if len(events) == 0:
            raise ValueError(f"{log.source}: no row is left for `{name}`. Use a longer log or larger shares.")
