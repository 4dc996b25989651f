"""Given the history, say in words what the user likes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Part, Split
from rectune.tasks.next_item import next_item
from rectune.tasks.rows import TaskRows
from rectune.tasks.written import last_of_each_user, training_only, with_texts, without_target, written


def preference(split: Split, index: ItemIndex, part: Part, *, writer: dict[str, Any]) -> TaskRows:
    """Given the history, say what the user likes. Variables: `history`, `preference`.

    One row a user: their last one in the part that has a history. `writer`: as in `item_search`; it sees the texts of
    that history only, never the target. Rows in `train` and `validation`; none in `test`.
    """
    part_rows = split.part(part)
    chosen = last_of_each_user(part_rows)
    rows = training_only(next_item(split, index, part).take(chosen), part)
    asked = [split.history(part_rows, int(at)).tolist() for at in chosen[: len(rows)]]
    texts = written(split, asked, kind="preference", writer=writer)
    made = with_texts(rows, texts, "preference", writer, split)
    return replace(made, kind="text", variables=lambda i: without_target(made.variables(i)))
