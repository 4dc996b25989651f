"""Ratings by means: of everybody, of the user's training ratings, of what the user rated before the target."""

from __future__ import annotations

import numpy as np

from rectune.baselines.scoring import Floats
from rectune.log.split import Rows, Split


def log_ratings(split: Split) -> Floats:
    """The rating of each event, shape (events,). Raises ValueError for a log without ratings."""
    if split.log.ratings is None:
        raise ValueError(f"{split.log.source}: this needs ratings, and the log has none.")
    return split.log.ratings.astype(np.float64)


def global_mean(split: Split, rows: Rows) -> Floats:
    """Mean of all training ratings, shape (rows,)."""
    return np.full(len(rows), log_ratings(split)[split.train_events].mean())


def user_mean(split: Split, rows: Rows) -> Floats:
    """Mean of the user's training ratings, shape (rows,); the global mean for a user without any."""
    users, given = split.log.user_codes[split.train_events], log_ratings(split)[split.train_events]
    count = np.bincount(users, minlength=split.log.n_users)
    total = np.bincount(users, weights=given, minlength=split.log.n_users)
    return np.where(count > 0, total / np.maximum(count, 1), given.mean())[rows.user]


def earlier_mean(split: Split, rows: Rows) -> Floats:
    """Mean of everything the user rated before the target, shape (rows,); the global mean where that is nothing.

    Unlike `user_mean` it reads ratings of the held-out time, but none that is later than the one it predicts.
    """
    total = np.concatenate([[0.0], np.cumsum(log_ratings(split))])
    count = rows.stop - rows.first
    mean = (total[rows.stop] - total[rows.first]) / np.maximum(count, 1)
    return np.where(count > 0, mean, global_mean(split, rows))
