"""Splits whose rows are judged one at a time: what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rectune.log.log import Log
from rectune.log.split import PARTS, Ints, Part, Split, rows_of


def split_of_rows(log: Log, parts: Mapping[Part, Any], first: Ints, history: int, notes: dict[str, Any]) -> Split:
    """A split whose training events are those of its training rows, with how many users its parts share."""
    rows = {name: rows_of(log, events, first, history) for name, events in parts.items()}
    train = rows["train"]
    seen = np.unique(np.concatenate([np.arange(a, b + 1) for a, b in zip(train.start, train.target, strict=True)]))
    users = {name: np.unique(part.user) for name, part in rows.items()}
    shared = {
        f"{a} and {b}": len(np.intersect1d(users[a], users[b])) for a, b in (PARTS[:2], PARTS[1:], (PARTS[0], PARTS[2]))
    }
    about = {**notes, "users": {name: len(some) for name, some in users.items()}, "users_in_both": shared}
    return Split(log=log, train_events=seen, notes=about, **rows)


def refuse_empty(log: Log, parts: Mapping[Part, Any]) -> None:
    """Raise ValueError where a part has no row."""
    for name, events in parts.items():
        if len(events) == 0:
            raise ValueError(f"{log.source}: no row is left for `{name}`. Use a longer log or larger shares.")
