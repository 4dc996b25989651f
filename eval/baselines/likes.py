"""What can be said of a like without a language model: how generous the user is, how liked the item is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rectune.eval.baselines.scoring import Floats

from rectune.split import Rows, Split


def share_of_likes(split: Split, rows: Rows, likes: NDArray[np.bool_]) -> Floats:
    """(likes in the history + 1) / (length of the history + 2), shape (rows,). `likes`: whether each event is a like."""
    total = np.concatenate([[0], np.cumsum(likes)])
    return np.asarray((total[rows.stop] - total[rows.start] + 1) / (rows.stop - rows.start + 2))


def item_like_rate(split: Split, rows: Rows, likes: NDArray[np.bool_]) -> Floats:
    """(likes of the target among training targets + 2 x overall rate) / (their number + 2), shape (rows,)."""
    items = split.log.item_codes
    trained = split.train.target
    rate = float(likes[trained].mean()) if len(trained) else 0.5
    count = np.bincount(items[trained], minlength=split.log.n_items)
    liked = np.bincount(items[trained], weights=likes[trained], minlength=split.log.n_items)
    return np.asarray(((liked + 2 * rate) / (count + 2))[items[rows.target]])


def both(share: Floats, rate: Floats) -> Floats:
    """Mean of the two on the log-odds scale, shape (rows,)."""
    odds = (np.log(share / (1 - share)) + np.log(rate / (1 - rate))) / 2
    return np.asarray(1 / (1 + np.exp(-odds)))
