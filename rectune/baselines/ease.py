"""EASE with a recency weight, alone and mixed with first-order Markov."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from rectune.baselines.markov import last_item_scores, transition_scores
from rectune.baselines.scoring import (
    MOST_ITEMS,
    Baseline,
    Floats,
    Scorer,
    choose,
    choose_mix,
    history_matrix,
    train_counts,
    train_matrix,
    weighted_sum,
)
from rectune.log.split import Rows, Split

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

    def parts(rows: Rows) -> tuple[Floats, Floats]:
        return ease_row.score(rows), last_item_scores(split, rows, chances)

    weights, found = choose_mix(split, parts, [(1.0, weight) for weight in MIX])
    settings = {**ease_row.settings, "markov": weights[1], **found}
    return Baseline("EASE + Markov", settings, lambda rows: weighted_sum(parts(rows), weights))


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
