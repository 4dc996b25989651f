"""First-order Markov chain: what followed the last item."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from rectune.baselines.scoring import Baseline, Floats, train_counts
from rectune.log.split import Rows, Split


def transitions(split: Split) -> sparse.csr_matrix:
    """How often item j came right after item i of the same user in training, (items, items)."""
    _, items = split.train_sequences()
    follows = split.follows
    shape = (split.log.n_items, split.log.n_items)
    return sparse.csr_matrix((np.ones(int(follows.sum())), (items[:-1][follows], items[1:][follows])), shape=shape)


def transition_scores(split: Split) -> sparse.csr_matrix:
    """P(j | last item i) from training counts, (items, items); rows of items without a follower are empty."""
    counts = transitions(split)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    return sparse.diags(1.0 / np.maximum(totals, 1.0)) @ counts


def markov(split: Split) -> Baseline:
    """score(j) = (events of j right after the last item + popularity) / events after the last item: P(j | last item), and by popularity,
    scaled to at most half an event so that it is above `NEAR`, among the items that followed it equally often or never."""
    followed = transitions(split)
    after = np.maximum(np.asarray(followed.sum(axis=1)).ravel(), 1.0)
    counts = train_counts(split)
    backoff = counts / (2 * max(counts.max(), 1.0))

    def score(rows: Rows) -> Floats:
        scores = last_item_scores(split, rows, followed) + backoff
        some = np.flatnonzero(rows.stop > rows.first)
        scores[some] /= after[split.log.item_codes[rows.stop[some] - 1], None]
        return np.asarray(scores)

    return Baseline("first-order Markov", {}, score)


def last_item_scores(split: Split, rows: Rows, chances: sparse.csr_matrix) -> Floats:
    """`chances` (items, items) of the last item of each row, (rows, items); 0 without a history, and for items that they do not know."""
    known = chances.shape[0]
    scores = np.zeros((len(rows), split.log.n_items))
    some = np.flatnonzero(rows.stop > rows.first)
    last = split.log.item_codes[rows.stop[some] - 1]
    some, last = some[last < known], last[last < known]
    found = chances[last].tocoo()
    scores[some[found.row], found.col] = found.data
    return scores
