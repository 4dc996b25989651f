"""EASE with a recency weight, alone and mixed with first-order Markov."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rectune.eval.baselines.markov import transition_scores
from rectune.eval.baselines.scoring import (
    MOST_ITEMS,
    Baseline,
    Floats,
    Scorer,
    choose,
    history_matrix,
    train_counts,
    train_matrix,
)
from scipy import linalg

from rectune.split import Rows, Split

MIX = (0.0, 0.03, 0.1, 0.3, 1.0)


def ease(
    split: Split,
    *,
    penalties: Sequence[float] = (30.0, 100.0, 300.0),
    decays: Sequence[float] = (0.5, 0.7, 0.85, 1.0),
    most_items: int = MOST_ITEMS,
) -> Baseline:
    """score = w B, where w weighs the history by decay ** age and B minimises |X - X B|² + penalty |B|², diag(B) = 0.

    Closed form: P = (XᵀX + penalty I)⁻¹, B = -P / diag(P) column by column, diagonal 0 (Steck, WWW 2019, eq. 8). Penalty
    and decay are chosen on validation. Above `most_items` items only the most popular ones are in B and the others
    score 0; `settings` says so. An inverse costs items³: for 12,000 items a minute or two of one CPU core a penalty.
    """
    kept = np.argsort(-train_counts(split), kind="stable")[:most_items]

    def candidates() -> Iterator[tuple[dict[str, Any], Scorer]]:
        gram = _gram(split, kept)
        for penalty in penalties:
            weights = ease_weights(gram, penalty)
            for decay in decays:
                settings = {"penalty": penalty, "decay": decay, "items": len(kept), "of": split.log.n_items}
                yield settings, EaseScorer(split, weights, kept, decay)

    return choose(split, "EASE, recency-weighted", candidates())


def ease_with_markov(split: Split, ease_row: Baseline) -> Baseline:
    """score = EASE + weight x P(j | last item), the weight chosen on validation."""
    chances = transition_scores(split).tocsr()

    def mixed(weight: float) -> Scorer:
        def score(rows: Rows) -> Floats:
            scores = ease_row.score(rows)
            some = rows.stop > rows.first
            last = split.log.item_codes[rows.stop[some] - 1]
            scores[some] += weight * np.asarray(chances[last].todense())
            return scores

        return score

    return choose(split, "EASE + Markov", (({**ease_row.settings, "markov": w}, mixed(w)) for w in MIX))


def ease_weights(gram: Floats, penalty: float) -> Floats:
    """B of EASE from the Gram matrix XᵀX, (items, items)."""
    inverse = linalg.inv(gram + penalty * np.eye(len(gram)), overwrite_a=True, check_finite=False)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights)


def _gram(split: Split, kept: Any) -> Floats:
    matrix = train_matrix(split)[:, kept]
    return np.asarray((matrix.T @ matrix).todense())


@dataclass(frozen=True)
class EaseScorer:
    """Scores of EASE with weights (kept, kept) over the items `kept`; `decay`: what an event loses with each one after it."""

    split: Split
    weights: Floats
    kept: NDArray[np.int64]
    decay: float

    def __call__(self, rows: Rows) -> Floats:
        scores = np.zeros((len(rows), self.split.log.n_items))
        scores[:, self.kept] = history_matrix(self.split, rows, self.decay)[:, self.kept] @ self.weights
        return scores
