"""The tasks of a recipe, each bound to its function, template and choice of history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Part, Split
from rectune.prompts.template import Template, load_template
from rectune.recipe.box import Held
from rectune.recipe.calls import Call, read_call, section_at, unless
from rectune.recipe.load import Recipe
from rectune.runtime.near import shown
from rectune.tasks.examples import TaskSpec
from rectune.tasks.history_call import history_call
from rectune.tasks.rows import TaskRows
from rectune.vectors.item_vectors import ItemVectors

MOST = 10_000  # how often an epoch may show a row


@dataclass(frozen=True)
class TaskCall:
    """One entry of a list of tasks. `history`: what chooses the events that its prompts show, or None where the split's window is
    shown."""

    call: Call
    template: Template
    share: float
    history: Call | None

    @property
    def key(self) -> str:
        """Where it stands in the recipe."""
        return self.call.key

    @property
    def name(self) -> str:
        """The name of its function."""
        return str(self.call.function.__name__)

    @property
    def reads_vectors(self) -> bool:
        """Whether its histories are chosen by item vectors."""
        return self.history is not None and self.history.wants("vectors")

    def rows(self, split: Split, index: ItemIndex, part: Part, vectors: ItemVectors | None = None) -> TaskRows:
        """The rows of a part of `split`. `vectors`: needed where `reads_vectors`."""
        chosen: dict[str, Any] = {}
        if self.history is not None:
            given = {"vectors": vectors} if self.reads_vectors else {}
            chosen = {"history": partial(self.history.function, **given, **self.history.arguments)}
        rows: TaskRows = self.call(split, index, part, **chosen)
        return rows

    def keys(self, *, without: Path) -> dict[str, Any]:
        """What tells it from another task."""
        return {**self.text_keys(without=without), "share": self.share}

    def text_keys(self, *, without: Path) -> dict[str, Any]:
        """What its texts depend on: all of that but its share of an epoch."""
        said = {**self.call.keys(without=without), "template": self.template.hash}
        if self.history is not None:
            said["history"] = self.history.keys(without=without)
        return said

    @property
    def made_by(self) -> tuple[Any, ...]:
        """Whose code its rows are."""
        return self.call.made_by + (() if self.history is None else self.history.made_by)


def rows_of(task: TaskCall, held: Held, part: Part) -> TaskRows:
    """The rows of a part of the run's split, from the boxes that hold it."""
    return task.rows(held["split"], held["index"], part, held["vectors"] if task.reads_vectors else None)


def specs_of(tasks: Sequence[TaskCall], held: Held) -> list[TaskSpec]:
    """What examples are made from, from the boxes that hold it."""
    return [TaskSpec(task.name, partial(rows_of, task, held), task.template, task.share) for task in tasks]


def read_task(recipe: Recipe, key: str, *, seed: int, gone: tuple[type[Exception], ...] = ()) -> TaskCall:
    """Check and bind the entry at `key`, such as 'tasks.0'. Raises ValueError or TypeError naming the key.

    `gone`: for which reasons its function and files may be missing, see `unless`.
    """
    given, own = ("split", "index", "part", "history"), ("template", "share", "history")
    call = unless(gone, key, partial(read_call, recipe, key, given=given, own=own))
    share = section_at(recipe, key).get("share", 1.0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= MOST:
        raise ValueError(
            f"{recipe.where(f'{key}.share')}: got {shown(share)}, but it must be a number above 0 (and at most {MOST:,})."
        )
    history = history_call(recipe, key, call.function, seed=seed) if call.known else None
    return TaskCall(call, read_template(recipe, key), float(share), history)


def read_tasks(recipe: Recipe, key: str, *, seed: int, gone: tuple[type[Exception], ...] = ()) -> list[TaskCall]:
    """The list of tasks at `key`. Raises TypeError where it is none."""
    *above, last = key.split(".")
    listed = (section_at(recipe, ".".join(above)) if above else recipe.settings)[last]
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
        raise TypeError(f"{recipe.where(key)}: it must be a list of at least one mapping, each with `call`.")
    return [read_task(recipe, f"{key}.{i}", seed=seed, gone=gone) for i in range(len(listed))]


def ranked_task(recipe: Recipe, tasks: Sequence[TaskCall]) -> TaskCall:
    """The task that is ranked: the first with the template of `rank`. Raises ValueError where none has it."""
    template = read_template(recipe, "rank")
    for call in tasks:
        if call.template.hash == template.hash:
            return call
    trained = ", ".join(dict.fromkeys(f"`{call.template.name}`" for call in tasks))
    raise ValueError(
        f"{recipe.where('rank.template')}: no task trains `{template.name}`, and a model is asked as it was tuned. "
        f"Name a template of the tasks: {trained}."
    )


def read_template(recipe: Recipe, key: str) -> Template:
    """The template that the section at `key` names."""
    name = section_at(recipe, key).get("template")
    if not isinstance(name, str):
        raise TypeError(
            f"{recipe.where(f'{key}.template')}: got {shown(name)}, but it must be the name of a `.jinja` file."
        )
    try:
        return load_template(recipe.find(name, kind="templates"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{recipe.where(f'{key}.template')}: {error}") from None
