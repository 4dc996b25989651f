"""The key `history` of a task: which function chooses the events that its prompts show."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rectune.recipe.calls import Call, check_vectors, read_call, section_at
from rectune.recipe.load import Recipe
from rectune.runtime.near import shown

EXAMPLE = "{call: similar, events: 10}"


def history_call(recipe: Recipe, key: str, task: Callable[..., Any], *, seed: int) -> Call | None:
    """What the section `key`.history names, or None where there is no such section.

    Raises TypeError or ValueError for a section of another form, for a task whose target its prompt must not tell, and where item
    vectors are needed and the recipe has none.
    """
    section = section_at(recipe, key).get("history")
    if section is None:
        return None
    where = recipe.where(f"{key}.history")
    if not isinstance(section, dict):
        raise TypeError(f"{where}: got {shown(section)}, but it must name a function, e.g. {EXAMPLE}.")
    if "history" not in inspect.signature(task).parameters:
        raise ValueError(
            f"{where}: `{task.__name__}` takes the split's history only: one that is chosen for its target would tell the "
            "target. Leave the key out; `like_or_dislike` and `rating`, which name the target in the prompt, can have it."
        )
    call = read_call(recipe, f"{key}.history", given=("split", "rows", "vectors"), seed=seed)
    check_vectors(recipe, call, "chooses events by item vectors")
    return call
