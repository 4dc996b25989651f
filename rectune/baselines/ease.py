"""EASE with a recency weight, alone and mixed with first-order Markov."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rectune.baselines.inverse import negative_inverse, stripes
from rectune.baselines.markov import last_item_scores, transition_scores
from rectune.baselines.scoring import (
    MOST_ITEMS,
    Baseline,
    Floats,
    Scorer,
    choose,
    choose_mix,
    history_matrix,
    part_of,
    train_counts,
    train_matrix,
    weighted_sum,
)
from rectune.log.split import Rows, Split
from rectune.runtime.room import Matrix, Room

MIX = (0.0, 0.03, 0.1, 0.3, 1.0)
GATHERED = 256  # rows of the weights that are read at a time for a long history


def ease(
    split: Split,
    *,
    penalties: Sequence[float] = (30.0, 100.0, 300.0),
    decays: Sequence[float] = (0.5, 0.7, 0.85, 1.0),
    most_items: int = MOST_ITEMS,
    room: Room = Room(),  # noqa: B008  frozen
) -> Baseline:
    """score = w B, where w weighs the history by decay ** age and B minimises |X - X B|² + penalty |B|², diag(B) = 0.

    Closed form: P = (XᵀX + penalty I)⁻¹, B = -P / diag(P) column by column, diagonal 0 (Steck, WWW 2019, eq. 8). Penalty
    and decay are chosen on validation. Above `most_items` items only the most popular ones are in B and the others
    score 0; name and `settings` say so. An inverse costs items³: for 12,000 items about a minute of one CPU core a penalty. Where
    `room` holds one B only, the chosen one is made again unless it was the last; where it holds none, B lies in a file.
    """
    kept = np.argsort(-train_counts(split), kind="stable")[:most_items]
    weights = EaseWeights(train_matrix(split)[:, kept].tocsc(), room)

    def candidates() -> Iterator[tuple[dict[str, Any], Scorer]]:
        for penalty in penalties:
            for decay in decays:
                settings = {"penalty": penalty, "decay": decay, "items": len(kept), "of": split.log.n_items}
                yield settings, EaseScorer(split, weights, penalty, kept, decay)

    return choose(split, f"EASE, recency-weighted{part_of(split, kept)}", candidates(), room=room)


def ease_with_markov(split: Split, ease_row: Baseline, *, room: Room = Room()) -> Baseline:  # noqa: B008  frozen
    """score = EASE + weight x P(j | last item), the weight chosen on validation."""
    chances = transition_scores(split).tocsr()

    def parts(rows: Rows) -> tuple[Floats, Floats]:
        return ease_row.score(rows), last_item_scores(split, rows, chances)

    weights, found = choose_mix(split, parts, [(1.0, weight) for weight in MIX], room=room)
    settings = {**ease_row.settings, "markov": weights[1], **found}
    name = ease_row.name.replace("EASE, recency-weighted", "EASE + Markov")
    return Baseline(name, settings, lambda rows: weighted_sum(parts(rows), weights))


def ease_weights(gram: Floats, penalty: float) -> Floats:
    """B of EASE from the Gram matrix XᵀX, (items, items)."""
    weights = Matrix(len(gram), len(gram), np.float64, Room(gram.nbytes * 2 / 2**30 + 1))
    weights.window(0, len(gram))[:] = gram
    _solve(weights, penalty)
    return weights.window(0, len(gram))


def _solve(gram: Matrix, penalty: float) -> None:
    """Put B in the place of XᵀX."""
    n = len(gram)
    for a, b in stripes(n):
        gram.window(a, b)[np.arange(b - a), np.arange(a, b)] += penalty
    negative_inverse(gram, said=f"EASE, penalty {penalty:g}")
    diagonal = np.concatenate([gram.window(a, b)[np.arange(b - a), np.arange(a, b)] for a, b in stripes(n)])
    for a, b in stripes(n):
        rows = gram.window(a, b)
        rows /= -diagonal  # of -P: B = -P / diag(P) = (-P) / -diag(-P)
        rows[np.arange(b - a), np.arange(a, b)] = 0.0


class EaseWeights:
    """B for each penalty that the room holds, at least for one; the oldest makes place for the next. `touched`: which user touched which
    item, (users, kept)."""

    def __init__(self, touched: sparse.csc_matrix, room: Room) -> None:
        self._touched, self._room = touched, room
        self._count = max(1, room.of_matrix // (8 * max(touched.shape[1], 1) ** 2))
        self._held: dict[float, Matrix] = {}

    def of(self, penalty: float) -> Matrix:
        """B, (kept, kept) float64."""
        if penalty not in self._held:
            n = self._touched.shape[1]
            old = self._held.pop(next(iter(self._held))) if len(self._held) >= self._count else None
            matrix = Matrix(n, n, np.float64, self._room) if old is None else old
            for a, b in stripes(n):
                gram = self._touched[:, a:b].T @ self._touched
                matrix.window(a, b)[:] = gram.toarray()
            _solve(matrix, penalty)
            self._held[penalty] = matrix
        return self._held[penalty]


@dataclass(frozen=True)
class EaseScorer:
    """Scores of EASE with `weights` of a `penalty` over the items `kept`; `decay`: what an event loses with each one after it."""

    split: Split
    weights: EaseWeights
    penalty: float
    kept: NDArray[np.int64]
    decay: float

    def __call__(self, rows: Rows) -> Floats:
        matrix, n = self.weights.of(self.penalty), self.split.log.n_items
        history = history_matrix(self.split, rows, self.decay)[:, self.kept]
        scores = np.zeros((len(rows), n))
        for i in range(len(rows)):
            own = slice(history.indptr[i], history.indptr[i + 1])
            items, weights = history.indices[own], history.data[own]
            total = np.zeros(len(self.kept))
            for a in range(0, len(items), GATHERED):  # row by row: a sum must not depend on what else is asked for
                total += weights[a : a + GATHERED] @ matrix.rows(items[a : a + GATHERED])
            scores[i, self.kept] = total
        return scores
