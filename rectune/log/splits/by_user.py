"""Users disjoint: each user is in one part only."""

from __future__ import annotations

import numpy as np

from rectune.log.log import Log
from rectune.log.row_parts import refuse_empty, split_of_rows
from rectune.log.split import PARTS, Split, check_log, positions, user_bounds


def by_user(
    log: Log,
    *,
    max_history: int = 10,
    validation: float = 0.1,
    test: float = 0.1,
    min_history: int = 3,
    rows_per_user: int | None = None,
    seed: int = 0,
) -> Split:
    """Each user is in one part only, drawn at random; every event with `min_history` earlier ones is a row.

    `rows_per_user` keeps only the last ones of each user (1 is TALLRec's rule for Book-Crossing). It says how a model does
    for people it has never met; times of the parts overlap. Raises ValueError when a part has no row.
    """
    check_log(log, max_history)
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise ValueError(
            f"`validation` ({validation}) and `test` ({test}) must be shares above 0 that sum to less than 1."
        )
    first, end = user_bounds(log)
    position = positions(log)
    enough = position - first >= max(min_history, 1)
    late = enough if rows_per_user is None else enough & (end - position <= rows_per_user)
    users = np.unique(log.user_codes[late])
    drawn = np.random.default_rng(seed).permutation(users)
    ends = [round(len(users) * (1 - validation - test)), round(len(users) * (1 - test))]
    parts = {
        name: position[late & np.isin(log.user_codes, some)]
        for name, some in zip(PARTS, np.split(drawn, ends), strict=True)
    }
    refuse_empty(log, parts)
    left_out = int(log.n_users - len(users))
    notes = {"rule": "by_user", "max_history": max_history, "sound": "users disjoint", "users_left_out": left_out}
    return split_of_rows(log, parts, first, max_history, notes)
