"""Tasks around a text that a writer makes; they only train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl

from rectune.log.split import Ints, Part, Rows, Split
from rectune.prompts.template import clean_value
from rectune.recipe.calls import bind, resolve_call
from rectune.recipe.load import Recipe
from rectune.tasks.rows import TaskRows
from rectune.tasks.views import Variables


class Writer(Protocol):
    """A writer, as in `rectune.tasks.writers`."""

    def __call__(
        self,
        items: pl.DataFrame,
        asked: Sequence[Sequence[int]],
        *,
        kind: Literal["intention", "preference"],
        **keys: Any,
    ) -> list[str]:
        """A text for each list of item codes, '' where nothing can be said."""


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


def with_texts(rows: TaskRows, texts: Sequence[str], name: str, writer: dict[str, Any], split: Split) -> TaskRows:
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


def training_only(rows: TaskRows, part: Part) -> TaskRows:
    """The rows, none of them in `test`: such a task is not ranked."""
    return rows.take(np.zeros(0, dtype=np.int64)) if part == "test" else rows


def without_target(variables: Variables) -> Variables:
    """The variables of a row without its target."""
    return {name: value for name, value in variables.items() if name != "target"}


def last_of_each_user(rows: Rows) -> Ints:
    """Positions of each user's last row that has a history, in the order of the rows."""
    full = np.flatnonzero(rows.stop > rows.start)
    latest = full[np.lexsort((rows.stop[full], rows.user[full]))][::-1]
    _, first = np.unique(rows.user[latest], return_index=True)
    return np.sort(latest[first])
