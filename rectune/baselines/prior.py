"""A collaborative prior over items, for the search of a language model: EASE, Markov and, where there is one, SASRec.

A prior is a module with `fit(split, folder, **keys)`, which writes what it learned from training events, and
`load(folder)`, which returns a function (split, rows) -> (rows, items) of scores that stand for log-probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from rectune.baselines.ease import EaseScorer, ease
from rectune.baselines.inverse import stripes
from rectune.baselines.markov import last_item_scores, transition_scores
from rectune.baselines.sasrec_network import SasRec, load_sasrec
from rectune.baselines.scoring import (
    MOST_ITEMS,
    Floats,
    choose_mix,
    history_matrix,
    top_columns,
    weighted_sum,
)
from rectune.log.split import Rows, Split
from rectune.runtime.room import Room

Score = Callable[[Split, Rows], Floats]
MARKOV = (0.0, 0.03, 0.1, 0.3, 1.0)
SASREC = (0.0, 0.003, 0.01, 0.03, 0.1)


def fit(
    split: Split,
    folder: Path,
    *,
    ease_items: int = MOST_ITEMS,
    neighbours: int = 300,
    sasrec: SasRec | None = None,
    memory: float = 2.0,
) -> None:
    """Fit EASE (its `neighbours` largest weights of each item are kept) and Markov, and mix them and SASRec on validation.

    score = EASE + m P(j | last item) + s log p_SASRec(j | history). `ease_items`: as in `ease`. `sasrec`: a trained one, None
    leaves it out. `memory`: GB that it may take, as in `Room`.
    """
    room = Room(memory, folder)
    settings = _fit_ease(split, folder, ease_items, neighbours, room)
    sparse.save_npz(folder / "markov.npz", transition_scores(split).tocsr())
    if sasrec is not None:
        sasrec.save(folder)
    parts = _Parts(folder, settings["decay"], sasrec=sasrec is not None)
    grid = list(product((1.0,), MARKOV, (0.0,) if sasrec is None else SASREC))
    (_, markov, share), found = choose_mix(split, partial(parts.scores, split), grid, room=room)
    settings.update(neighbours=neighbours, markov=markov, sasrec=share, **found)
    (folder / "prior.json").write_text(json.dumps(settings))


def load(folder: Path) -> Score:
    """The scores of what `fit` wrote."""
    settings = json.loads((folder / "prior.json").read_text())
    weights = (1.0, settings["markov"], settings["sasrec"])
    parts = _Parts(folder, settings["decay"], sasrec=bool(settings["sasrec"]))
    return lambda split, rows: weighted_sum(parts.scores(split, rows), weights)


class Prior(Protocol):
    """A prior: a module of this folder, or one of your own."""

    def fit(
        self,
        split: Split,
        folder: Path,
        *,
        seed: int = ...,
        memory: float = ...,
        device: str = ...,
        sasrec: SasRec = ...,
        **keys: Any,
    ) -> None:
        """Write what it learned from training events. Given where they are named: the recipe's seed, `eval.memory`, `model.device`, the run's SASRec."""

    def load(self, folder: Path) -> Score:
        """The scores of what `fit` wrote, rows of a split -> (rows, items), that stand for log-probabilities."""


class _Parts:
    """The fitted parts of a prior."""

    def __init__(self, folder: Path, decay: float, *, sasrec: bool) -> None:
        self._decay = decay
        self._ease = sparse.load_npz(folder / "ease.npz").tocsr()
        self._markov = sparse.load_npz(folder / "markov.npz").tocsr()
        self._sasrec = load_sasrec(folder) if sasrec else None

    def scores(self, split: Split, rows: Rows) -> tuple[Floats, Floats, Floats]:
        """EASE, P(j | last item) and SASRec's log p(j | history), 0 where it was not asked for; each (rows, items).

        Items that came after the fit score 0, and the least that SASRec gives anything.
        """
        fitted = self._ease.shape[0]
        ease_scores = np.zeros((len(rows), split.log.n_items))
        seen = history_matrix(split, rows, self._decay)[:, :fitted]
        ease_scores[:, :fitted] = np.asarray((seen @ self._ease).todense())
        sasrec_scores = np.zeros_like(ease_scores)
        if self._sasrec is not None:
            chances = self._sasrec.log_probabilities(split, rows)
            sasrec_scores[:, :fitted] = chances
            sasrec_scores[:, fitted:] = chances.min(1, keepdims=True)
        return ease_scores, last_item_scores(split, rows, self._markov), sasrec_scores


def _fit_ease(split: Split, folder: Path, most_items: int, neighbours: int, room: Room) -> dict[str, Any]:
    """Write EASE's largest weights and return its settings; the dense weights, a gigabyte for 12,000 items, are let go."""
    row = ease(split, most_items=most_items, room=room)
    assert isinstance(row.score, EaseScorer)
    sparse.save_npz(folder / "ease.npz", _largest(row.score, neighbours, split.log.n_items))
    return row.settings


def _largest(fitted: EaseScorer, neighbours: int, n_items: int) -> sparse.csr_matrix:
    """The largest weights, by size, of each item's row of EASE, (items, items), float32."""
    weights, most = fitted.weights.of(fitted.penalty), min(neighbours, len(fitted.kept))
    parts = []
    for a, b in stripes(len(weights)):
        values = weights.rows(np.arange(a, b))
        columns = top_columns(
            np.abs(values).astype(np.float32), most
        )  # of weights equal but for rounding the first columns
        parts.append((columns.astype(np.int32), np.take_along_axis(values, columns, 1).astype(np.float32)))
    columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    rows = np.repeat(fitted.kept, most)
    return sparse.csr_matrix((values.ravel(), (rows, fitted.kept[columns].ravel())), shape=(n_items, n_items))
