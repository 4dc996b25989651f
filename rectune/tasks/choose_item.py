"""Given the history and some candidates, name the one that comes next."""

from __future__ import annotations

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Part, Split
from rectune.runtime.ragged import Ragged
from rectune.runtime.seeded import seeded
from rectune.tasks.next_item import next_item
from rectune.tasks.rows import TaskRows
from rectune.tasks.views import ItemViews, Variables


def choose_item(split: Split, index: ItemIndex, part: Part) -> TaskRows:
    """Given the history and some candidates, name the one that comes next. Variables: `history`, `candidates`, `target`, `user` (see `next_item`).

    Candidates are those that the log's rows offer, in an order that depends on which they are and on nothing else: sources that draw them
    by the target often put it where its number says. Nothing but a candidate is ever listed. Raises ValueError where a row offers none.
    """
    plain, rows = next_item(split, index, part), split.part(part)
    offered = split.candidates(rows)
    if offered is None:
        if len(rows):
            raise ValueError(
                f"{split.log.source}: `choose_item` chooses among candidates, and none are given. Give `candidates` with each history, or use a data "
                "builder whose rows name them, such as `sdpo`."
            )
        offered = Ragged.of([])
    view, mixed = ItemViews(split, index), Ragged.of([_mixed(some) for some in offered.lists()])

    def variables(i: int) -> Variables:
        some = mixed.values[mixed.starts[i] : mixed.starts[i + 1]]
        return {**plain.variables(i), "candidates": [view(int(item)) for item in some]}

    return TaskRows(
        plain.row, variables, "item", plain.target, history=plain.history, candidates=mixed, shown=plain.shown,
    )  # fmt: skip


def _mixed(items: list[int]) -> list[int]:
    some = sorted(set(items))
    return [some[int(i)] for i in seeded("candidates", *some).permutation(len(some))]
