"""Scores for all items -> places and lists, and choosing a baseline's weights on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from tqdm import tqdm

from rectune.log.split import Rows, Split, evenly
from rectune.runtime.ragged import ranges
from rectune.runtime.room import Room

Floats = NDArray[np.float64]
Scorer = Callable[[Rows], Floats]  # rows -> (rows, items), higher is better
MOST_ITEMS = 12_101  # of EASE and item-KNN: all of Amazon Beauty, 1.1 GB a matrix
SHOWN_FROM = 2 * 10**7  # scores; fewer take a few seconds and show no bar
CHOSEN_BY = "validation_ndcg@10"
NOT_NUMBERS = "a baseline or prior gave NaN as the score of an item."
NEAR = 1e-6  # scores so near to each other, relative to the target's, are equal: what CPUs and thread counts differ by is far less
NOWHERE = int(np.iinfo(np.int32).max)  # the place of a target that cannot be listed


@dataclass(frozen=True)
class Baseline:
    """A fitted ranker without a language model: its name, the weights that were chosen, and its scores."""

    name: str
    settings: dict[str, Any]
    score: Scorer


@dataclass(frozen=True)
class Placed:
    """`place`: place of the target (rows,), from 0, NOWHERE where it cannot be listed. `items`: the
    first items of each row (rows, width) int32, best first, -1 where there are none."""

    place: NDArray[np.int64]
    items: NDArray[np.int32]


class Oracle(Protocol):
    """What knows the probabilities that made a log; it is given the keys of `data`."""

    def __call__(self, split: Split, rows: Rows, **keys: Any) -> Floats:
        """Probability of every item as the next one of each row, (rows, items)."""


def list_rows(
    split: Split,
    rows: Rows,
    score: Scorer,
    *,
    width: int,
    room: Room = Room(),  # noqa: B008  frozen
    said: str = "",
) -> tuple[Placed, Placed]:
    """Rank the whole catalogue for each row, with seen items hidden and not hidden (in this order).

    Ties count against the target: its place is the number of other items that score at least as high, or less by at most `NEAR` times the
    target's score. Of equal scores lists hold the item first that stands first in the catalogue. `said`: what a bar calls it; '' for none.
    """
    hidden, shown = [], []
    with tqdm(
        total=len(rows), desc=said, unit="row", disable=not said or len(rows) * split.log.n_items < SHOWN_FROM
    ) as bar:
        for part in blocks(split, rows, room):
            scores = score(part).astype(np.float64, copy=True)
            targets = split.targets(part)
            shown.append(_listed(scores, targets, width))
            hidden.append(_listed(_hidden(split, part, scores), targets, width))
            bar.update(len(part))
    return _joined(hidden), _joined(shown)


def place_among(
    split: Split,
    rows: Rows,
    score: Scorer,
    candidates: Sequence[NDArray[np.int32]],
    *,
    room: Room = Room(),  # noqa: B008  frozen
) -> Placed:
    """Place of the target among the candidates of each row, of which it is the first; ties count against it, as in `list_rows`. No lists."""
    places: list[int] = []
    for part in blocks(split, rows, room):
        scores, before = score(part), len(places)
        for i in range(len(part)):
            own = scores[i, candidates[before + i]].astype(np.float64)
            if np.isnan(own).any():
                raise ValueError(NOT_NUMBERS)
            places.append(NOWHERE if np.isneginf(own[0]) else int((own >= least_equal(own[:1])).sum()) - 1)
    return Placed(np.array(places, dtype=np.int64), np.zeros((len(rows), 0), dtype=np.int32))


def blocks(split: Split, rows: Rows, room: Room) -> Iterator[Rows]:
    """The rows in blocks whose scores the room allows."""
    return (rows.take(which) for which in room.blocks(len(rows), split.log.n_items))


def part_of(split: Split, kept: NDArray[Any]) -> str:
    """What is added to the name of a baseline that saw the items `kept` only; '' where these are all."""
    return "" if len(kept) == split.log.n_items else f", {len(kept):,} of {split.log.n_items:,} items"


def _hidden(split: Split, rows: Rows, scores: Floats) -> Floats:
    """The same scores, -inf for seen items."""
    who, what = seen_pairs(split, rows)
    scores[who, what] = -np.inf
    return scores


def _places(scores: Floats, targets: NDArray[np.int32]) -> NDArray[np.int64]:
    if np.isnan(scores).any():
        raise ValueError(NOT_NUMBERS)
    own = scores[np.arange(len(targets)), targets]
    place = (scores >= least_equal(own)[:, None]).sum(axis=1) - 1
    place[np.isneginf(own)] = NOWHERE
    return np.asarray(place)


def least_equal(own: NDArray[np.floating[Any]]) -> Floats:
    """The least score that counts as equal to each of `own` (see `NEAR`)."""
    exact = own.astype(np.float64)
    return np.asarray(exact - NEAR * np.abs(exact))


def _listed(scores: Floats, targets: NDArray[np.int32], width: int) -> Placed:
    place = _places(scores, targets)
    width = min(width, scores.shape[1])
    top = top_columns(scores, width)
    values = np.take_along_axis(scores, top, 1)
    order = np.lexsort((top, -values), axis=-1)
    items = np.take_along_axis(top, order, 1).astype(np.int32)
    items[np.isneginf(np.take_along_axis(values, order, 1))] = -1
    return Placed(place, items)


def _joined(parts: list[Placed]) -> Placed:
    return Placed(np.concatenate([p.place for p in parts]), np.concatenate([p.items for p in parts]))


def top_columns(scores: NDArray[np.floating[Any]], width: int) -> NDArray[np.int64]:
    """Columns of the `width` largest values of each row, (rows, width), in order of the columns.

    Of equal values at the end the first columns are taken, where `argpartition` takes others on other CPUs. Raises ValueError
    for scores that are no numbers.
    """
    if width == 0:
        return np.zeros((len(scores), 0), dtype=np.int64)
    least = np.partition(scores, -width, axis=1)[:, -width, None]
    above, level = scores > least, scores == least
    room = width - above.sum(axis=1, keepdims=True)
    taken = above | (level & (np.cumsum(level, axis=1, dtype=np.int32) <= room))
    if (taken.sum(axis=1) != width).any():
        raise ValueError(NOT_NUMBERS)
    return np.nonzero(taken)[1].reshape(len(scores), width)


def seen_pairs(split: Split, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Row position and item of every event that stands before the target of its row; shapes (pairs,)."""
    lengths = rows.stop - rows.first
    who = np.repeat(np.arange(len(rows)), lengths)
    return who, split.log.item_codes[ranges(rows.first, lengths)]


def history_matrix(split: Split, rows: Rows, decay: float) -> sparse.csr_matrix:
    """Weights of the seen items, (rows, items): decay ** (events since), 1 for the most recent; the largest counts."""
    matrix = events_since(split, rows)
    matrix.data = decay**matrix.data
    return matrix


def events_since(split: Split, rows: Rows) -> sparse.csr_matrix:
    """How many events came after the latest of each seen item, (rows, items), float64; 0, for the most recent one, is an entry too."""
    who, what = seen_pairs(split, rows)
    lengths = rows.stop - rows.first
    since = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(lengths.sum())
    order = np.lexsort((since, what, who))
    who, what, since = who[order], what[order], since[order]
    latest = np.ones(len(who), dtype=bool)
    latest[1:] = (who[1:] != who[:-1]) | (what[1:] != what[:-1])
    shape = (len(rows), split.log.n_items)
    return sparse.csr_matrix((since[latest].astype(np.float64), (who[latest], what[latest])), shape=shape)


def train_matrix(split: Split) -> sparse.csr_matrix:
    """Which user touched which item in training, (users, items), ones."""
    users, items = split.train_sequences()
    shape = (split.log.n_users, split.log.n_items)
    matrix = sparse.csr_matrix((np.ones(len(users)), (users, items)), shape=shape)
    matrix.data[:] = 1.0
    return matrix


def train_counts(split: Split) -> Floats:
    """Training events of each item, shape (items,)."""
    return np.bincount(split.train_sequences()[1], minlength=split.log.n_items).astype(np.float64)


def choose(
    split: Split,
    name: str,
    candidates: Iterable[tuple[dict[str, Any], Scorer]],
    *,
    most: int = 4000,
    room: Room = Room(),  # noqa: B008  frozen
) -> Baseline:
    """Return the candidate with the highest NDCG@10 on validation, seen items hidden; the first of equal ones, and the
    first of all where there are no validation rows."""
    rows = split.validation.take(evenly(len(split.validation), most))
    best: tuple[float, Baseline] | None = None
    for settings, score in tqdm(
        candidates, desc=f"choosing {name}", disable=len(rows) * split.log.n_items < SHOWN_FROM
    ):
        if not len(rows):
            return Baseline(name, settings, score)
        value = float(_gains(split, rows, score, room).mean())
        if best is None or value > best[0]:
            best = (value, Baseline(name, {**settings, CHOSEN_BY: round(value, 6)}, score))
    assert best is not None
    return best[1]


def choose_mix(
    split: Split,
    parts: Callable[[Rows], Sequence[Floats]],
    weights: Sequence[tuple[float, ...]],
    *,
    most: int = 4000,
    room: Room = Room(),  # noqa: B008  frozen
) -> tuple[tuple[float, ...], dict[str, float]]:
    """Of several weights of the sum of `parts` the ones that `choose` would take, and their value for `settings`.

    The parts of each row are computed once, whatever the number of weights.
    """
    rows = split.validation.take(evenly(len(split.validation), most))
    if not len(rows):
        return weights[0], {}
    each_gain: list[Floats] = []
    for chunk in blocks(split, rows, room):
        scores = parts(chunk)
        found = [_gains(split, chunk, partial(_known, weighted_sum(scores, each)), room) for each in weights]
        each_gain.append(np.stack(found, axis=1))
    gains = np.concatenate(each_gain).sum(axis=0)  # at once: sums of sums would depend on the room
    return weights[int(gains.argmax())], {CHOSEN_BY: round(float(gains.max() / len(rows)), 6)}


def _known(scores: Floats, rows: Rows) -> Floats:
    """Scores that are there already, as a Scorer."""
    return scores


def weighted_sum(parts: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """The sum of all parts, each times its weight."""
    return np.asarray(sum(weight * part for weight, part in zip(weights, parts, strict=True) if weight))


def discounted(place: NDArray[np.integer], k: int = 10) -> Floats:
    """NDCG@k of each row with one relevant item at `place`, from 0: 1 / log2(place + 2) in the first k places, 0 behind them."""
    return np.where(place < k, 1 / np.log2(place + 2.0), 0.0)


def _gains(split: Split, rows: Rows, score: Scorer, room: Room) -> Floats:
    """NDCG@10 of each row, seen items hidden; places as in `list_rows`, without its lists."""
    places = []
    for part in blocks(split, rows, room):
        scores = _hidden(split, part, score(part).astype(np.float64, copy=True))
        places.append(_places(scores, split.targets(part)))
    return discounted(np.concatenate(places))
