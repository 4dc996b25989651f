"""Names that several items share, told apart: by one more digit, or by another last code."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rectune.indexing.item_index import Codes, colliding_items, repair_with_digit
from rectune.runtime.near import shown

Repair = Literal["digit", "reassign"]


def repaired(levels: Codes, distances: NDArray[np.float32], *, repair: Repair) -> Codes:
    """Names made unique. `digit`: one more level (TIGER); `reassign`: another code of the last level (LC-Rec).

    `levels`: (items, levels). `distances`: of each item to the codes of the last level, (items, codes). Raises ValueError
    for another `repair`, and where `reassign` finds too few codes.
    """
    if repair == "digit":
        return repair_with_digit(levels)[0]
    if repair == "reassign":
        return reassign_last(levels, distances)
    raise ValueError(f"`repair`: got {shown(repair)}; use digit or reassign.")


def reassign_last(levels: Codes, distances: NDArray[np.float32]) -> Codes:
    """Give items that share a name other last codes under the same prefix, as near as possible in sum.

    LC-Rec (sec. 3.1.2) repeats Sinkhorn among the colliding items; here each prefix is one assignment problem, solved
    exactly. One item of each shared name may keep it; items with a name of their own don't move. Raises ValueError when
    more items share a prefix than there are last codes.
    """
    shared = colliding_items(levels)
    out = levels.copy()
    prefixes, group = np.unique(levels[:, :-1], axis=0, return_inverse=True)
    group = group.reshape(-1)
    codes = distances.shape[1]
    for prefix in np.unique(group[shared]):
        members = np.flatnonzero(group == prefix)
        if len(members) > codes:
            raise ValueError(
                f"`repair: reassign`: {len(members)} items share the codes {prefixes[prefix].tolist()}, and the last level has "
                f"{codes} codes. Raise `codes` or `levels`, or use `repair: digit`."
            )
        moving = members[shared[members]]
        free = np.setdiff1d(np.arange(codes), levels[members[~shared[members]], -1])
        row, column = linear_sum_assignment(distances[np.ix_(moving, free)])
        out[moving[row], -1] = free[column]
    return out
