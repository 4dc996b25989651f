"""From liked and disliked items, does the user like the target?"""

from __future__ import annotations

import numpy as np

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Part, Split
from rectune.tasks.history import ChooseHistory, window
from rectune.tasks.opinions import with_opinions
from rectune.tasks.rows import TaskRows


def like_or_dislike(
    split: Split, index: ItemIndex, part: Part, *, like_above: float = 3.0, history: ChooseHistory = window
) -> TaskRows:
    """From liked and disliked items, does the user like the target? Variables: `history`, `target`, `liked`.

    Every entry of `history` has `liked`: whether its rating is above `like_above`. The answers are `liked` false
    and true. `history` chooses the events, see `rectune.tasks.history`. Raises ValueError where the log has no ratings.
    """
    ratings = split.log.ratings
    if ratings is None:
        raise ValueError(f"{split.log.source}: `like_or_dislike` needs ratings, and this log has none.")
    likes = ratings > like_above
    rows = split.part(part)
    variables = with_opinions(split, index, rows, history, lambda event: {"liked": bool(likes[event])})
    return TaskRows(
        rows.row, variables, "answer", likes[rows.target].astype(np.int64), ({"liked": False}, {"liked": True})
    )
