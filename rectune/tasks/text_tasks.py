"""Tasks around a text that a writer makes: search by intention, preference in words. They only train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Ints, Part, Rows, Split
from rectune.prompts.template import clean_value
from rectune.recipe.load import Recipe, bind, resolve_call
from rectune.tasks.tasks import TaskRows, Variables, next_item


def item_search(split: Split, index: ItemIndex, part: Part, *, writer: dict[str, Any]) -> TaskRows:
    """Given what somebody wants in words, and their history, name the item. Variables: `history`, `intention`, `target`.

    `writer`: `call` and the keys of a function as in `rectune.tasks.writers`; it sees the target's texts only. Without reviews
    (a log keeps none) an intention is written from item texts, one for each item. Rows whose item the writer can say
    nothing about are left out. Rows in `train` and `validation`; none in `test`, as it is no task to rank.
    """
    rows = _training_only(next_item(split, index, part), part)
    wanted, which = np.unique(rows.target, return_inverse=True)
    texts = written(split, [[int(item)] for item in wanted], kind="intention", writer=writer)
    return _with_texts(rows, [texts[at] for at in which], "intention", writer, split)


def preference(split: Split, index: ItemIndex, part: Part, *, writer: dict[str, Any]) -> TaskRows:
    """Given the history, say what the user likes. Variables: `history`, `preference`.

    One row a user: their last one in the part that has a history. `writer`: as in `item_search`; it sees the texts of
    that history only, never the target. Rows in `train` and `validation`; none in `test`.
    """
    part_rows = split.part(part)
    chosen = _last_of_each_user(part_rows)
    rows = _training_only(next_item(split, index, part).take(chosen), part)
    asked = [split.history(part_rows, int(at)).tolist() for at in chosen[: len(rows)]]
    texts = written(split, asked, kind="preference", writer=writer)
    made = _with_texts(rows, texts, "preference", writer, split)
    return replace(made, kind="text", variables=lambda i: _without_target(made.variables(i)))


def written(
    split: Split, asked: Sequence[Sequence[int]], *, kind: Literal["intention", "preference"], writer: dict[str, Any]
) -> list[str]:
    """Let the writer that a recipe names write one text for each list of item codes; white space is folded.

    Raises TypeError or ValueError naming the key under `writer` that is wrong.
    """
    recipe = Recipe(name="writer", settings={"writer": writer})
    function = resolve_call(recipe, "writer")
    arguments = bind(recipe, "writer", function, given=("items", "asked", "kind"))
    if not asked:
        return []
    texts = function(split.log.items, asked, kind=kind, **arguments)
    if len(texts) != len(asked):
        raise ValueError(f"`writer.call`: `{writer['call']}` gave {len(texts)} texts, but {len(asked)} were asked for.")
    return [clean_value(" ".join(text.split())) for text in texts]


def _with_texts(rows: TaskRows, texts: Sequence[str], name: str, writer: dict[str, Any], split: Split) -> TaskRows:
    """The rows that have a text, with the text as the variable `name`."""
    kept = np.flatnonzero([bool(text) for text in texts])
    if len(rows) and not len(kept):
        raise ValueError(
            f"{split.log.source}: `{writer['call']}` found nothing to write a single {name} from; the items have "
            f"{', '.join(split.log.items.columns)}. Add texts such as `categories`, `brand` or `description`, name another "
            "`writer`, or leave the task out."
        )
    chosen = rows.take(kept)

    def variables(i: int) -> Variables:
        return {**chosen.variables(i), name: texts[kept[i]]}

    notes = {"writer": writer["call"], "rows_without_text": len(rows) - len(kept)}
    return replace(chosen, variables=variables, notes=notes)


def _training_only(rows: TaskRows, part: Part) -> TaskRows:
    return rows.take(np.zeros(0, dtype=np.int64)) if part == "test" else rows


def _without_target(variables: Variables) -> Variables:
    return {name: value for name, value in variables.items() if name != "target"}


def _last_of_each_user(rows: Rows) -> Ints:
    """Positions of each user's last row that has a history, in the order of the rows."""
    full = np.flatnonzero(rows.stop > rows.start)
    latest = full[np.lexsort((rows.stop[full], rows.user[full]))][::-1]
    _, first = np.unique(rows.user[latest], return_index=True)
    return np.sort(latest[first])
