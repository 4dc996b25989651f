"""Which of a user's earlier events a prompt shows: for tasks that know their target when they ask about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rectune.log.split import Ints, Rows, Split
from rectune.vectors.item_vectors import ItemVectors

Chosen = Callable[[int], Ints]  # row -> positions of its events in the log, oldest first
ChooseHistory = Callable[[Split, Rows], Chosen]  # a selector, bound to what the recipe says of it


class HistorySelector(Protocol):
    """What a recipe names as `history`; it is given item vectors and the recipe's seed where it names them."""

    def __call__(self, split: Split, rows: Rows, *, vectors: ItemVectors = ..., seed: int = ..., **keys: Any) -> Chosen:
        """For each row which of its user's earlier events a prompt shows."""


def window(split: Split, rows: Rows) -> Chosen:
    """The history that the split cut: the most recent events, at most its `max_history`."""
    return lambda i: np.arange(rows.start[i], rows.stop[i])


def recent(split: Split, rows: Rows, *, events: int = 10) -> Chosen:
    """The most recent `events` of all earlier events of the user, whatever the split's `max_history`."""
    _check(events)
    return lambda i: _earlier(rows, i)[-events:]


def similar(split: Split, rows: Rows, vectors: ItemVectors, *, events: int = 10) -> Chosen:
    """The `events` earlier events of the user whose items are most like the target, by cosine of the run's item vectors.

    Of equally similar events the later ones are taken. Source: ReLLa (Lin et al., WWW 2024), semantic user behavior
    retrieval. Raises ValueError for an item without a vector.
    """
    _check(events)
    alike = _Alike(split, rows, vectors)
    return lambda i: np.sort(alike.best(i, _earlier(rows, i), events))


def mixed(split: Split, rows: Rows, vectors: ItemVectors, *, events: int = 10) -> Chosen:
    """Half the most recent events, half the most similar ones of those before them; an odd one more is a recent one.

    After RALLRec (Xu et al., WWW 2025 companion), where recency and similarity decide together.
    """
    _check(events)
    alike, late = _Alike(split, rows, vectors), (events + 1) // 2

    def chosen(i: int) -> Ints:
        earlier = _earlier(rows, i)
        return np.sort(np.concatenate([alike.best(i, earlier[:-late], events - late), earlier[-late:]]))

    return chosen


class _Alike:
    """Item directions (items, dimensions), norm 1 or 0, and the order that they put a row's events in."""

    def __init__(self, split: Split, rows: Rows, vectors: ItemVectors) -> None:
        values = vectors.of(split.log.items["item_id"].to_list()).joined()
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        self._unit: NDArray[np.float32] = values / np.maximum(norms, np.float32(1e-12))
        self._items, self._rows = split.log.item_codes, rows

    def best(self, i: int, events: Ints, most: int) -> Ints:
        """Up to `most` of `events`, most like the target of row i first, later ones first among equals."""
        target = self._unit[self._items[self._rows.target[i]]]
        # A sum for each row, not a matrix product: the same item then has the same cosine to the bit wherever it stands.
        cosine = (self._unit[self._items[events]] * target).sum(axis=1, dtype=np.float64)
        return events[np.lexsort((-events, -cosine))[:most]]


def _earlier(rows: Rows, i: int) -> Ints:
    """Every event of the user of row i before its target, oldest first."""
    return np.arange(rows.first[i], rows.stop[i])


def _check(events: int) -> None:
    if events < 1:
        raise ValueError(f"`history.events` must be at least 1, got {events}.")
