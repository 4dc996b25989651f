"""What can be said of a like without a language model: how generous the user is, how liked the item is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rectune.baselines.scoring import Floats
from rectune.log.split import Rows, Split


def share_of_likes(split: Split, rows: Rows, likes: NDArray[np.bool_]) -> Floats:
    """(likes in the history + 1) / (length of the history + 2), shape (rows,). `likes`: whether each event is a like."""
    total = np.concatenate([[0], np.cumsum(likes)])
    return np.asarray((total[rows.stop] - total[rows.start] + 1) / (rows.stop - rows.start + 2))


def item_like_rate(split: Split, rows: Rows, likes: NDArray[np.bool_], *, leave_out: bool = False) -> Floats:
    """(likes of the target among training targets + 2 x overall rate) / (their number + 2), shape (rows,).

    `leave_out`: without the row's own target, for rows that are training rows themselves.
    """
    items = split.log.item_codes
    trained = split.train.target
    rate = float(likes[trained].mean()) if len(trained) else 0.5
    count = np.bincount(items[trained], minlength=split.log.n_items)
    liked = np.bincount(items[trained], weights=likes[trained], minlength=split.log.n_items)
    at, own = items[rows.target], likes[rows.target] if leave_out else 0
    return np.asarray((liked[at] - own + 2 * rate) / (count[at] - int(leave_out) + 2))


def both(share: Floats, rate: Floats) -> Floats:
    """Mean of the two on the log-odds scale, shape (rows,)."""
    return np.asarray(1 / (1 + np.exp(-(_odds(share) + _odds(rate)) / 2)))


def logistic(split: Split, rows: Rows, likes: NDArray[np.bool_]) -> Floats:
    """Logistic regression on the log-odds of the two, fitted on the training rows, shape (rows,); the share of likes among
    training targets where these are all alike. A training row's own answer is left out of its item's rate."""
    from sklearn.linear_model import LogisticRegression

    train, answer = split.train, likes[split.train.target]
    if len(np.unique(answer)) < 2:
        return np.full(len(rows), float(answer.mean()) if len(answer) else 0.5)

    def features(of: Rows, *, leave_out: bool) -> Floats:
        rate = item_like_rate(split, of, likes, leave_out=leave_out)
        return np.stack([_odds(share_of_likes(split, of, likes)), _odds(rate)], axis=1)

    model = LogisticRegression().fit(features(train, leave_out=True), answer)
    return np.asarray(model.predict_proba(features(rows, leave_out=False))[:, 1])


def _odds(chance: Floats) -> Floats:
    """Log-odds; a chance of 0 or 1 (all training targets alike) counts as one in a million away from it."""
    inside = np.clip(chance, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))
