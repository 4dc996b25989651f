"""Rows whose events carry an opinion: likes, ratings."""

from __future__ import annotations

from collections.abc import Callable

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Rows, Split
from rectune.tasks.history import ChooseHistory
from rectune.tasks.views import ItemViews, Variables


def with_opinions(
    split: Split, index: ItemIndex, rows: Rows, history: ChooseHistory, opinion: Callable[[int], Variables]
) -> Callable[[int], Variables]:
    """Variables of rows whose events carry an opinion: each entry of `history` has its own, the target's stands apart."""
    view, items, chosen = ItemViews(split, index), split.log.item_codes, history(split, rows)

    def variables(i: int) -> Variables:
        past = [{**view(int(items[event])), **opinion(int(event))} for event in chosen(i)]
        at = int(rows.target[i])
        return {"history": past, "target": view(int(items[at])), **opinion(at)}

    return variables
