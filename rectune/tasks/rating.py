"""From rated items, which rating does the user give the target?"""

from __future__ import annotations

from rectune.indexing.item_index import ItemIndex
from rectune.log.rating_scale import scale_of
from rectune.log.split import Part, Split
from rectune.tasks.history import ChooseHistory, window
from rectune.tasks.opinions import with_opinions
from rectune.tasks.rows import TaskRows


def rating(
    split: Split,
    index: ItemIndex,
    part: Part,
    *,
    low: float | None = None,
    high: float | None = None,
    step: float = 1.0,
    history: ChooseHistory = window,
) -> TaskRows:
    """From rated items, which rating does the user give the target? Variables: `history`, `target`, `rating`, `lowest`,
    `highest`.

    Every entry of `history` has `rating`, a text such as '4'. The answers are the ratings from `low` to `high` by `step`,
    or, where neither is given, the different ratings of the log. `history` chooses the events, see `rectune.tasks.history`.
    Raises ValueError for a log without ratings, for ratings that are none of the answers, and for bounds that make no scale.
    """
    scale = scale_of(split.log, low=low, high=high, step=step)
    assert split.log.ratings is not None
    given, texts, rows = scale.positions(split.log.ratings, split.log.source), scale.texts, split.part(part)
    opinions = with_opinions(split, index, rows, history, lambda event: {"rating": texts[given[event]]})
    ends = {"lowest": texts[0], "highest": texts[-1]}
    answers = tuple({"rating": text} for text in texts)
    return TaskRows(rows.row, lambda i: {**opinions(i), **ends}, "answer", given[rows.target], answers, scale.values)
