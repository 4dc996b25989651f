"""The tasks of a recipe, each bound to its function, template and choice of history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rectune.log.split import Part, Split
from rectune.prompts.template import Template, load_template
from rectune.recipe.calls import bind, resolve_call, section_at
from rectune.recipe.fingerprints import source_of
from rectune.runtime.files import inputs
from rectune.tasks.examples import TaskSpec
from rectune.tasks.history import Chosen
from rectune.tasks.history_call import history_call
from rectune.tasks.rows import TaskRows

if TYPE_CHECKING:
    from rectune.run.materials import Materials


@dataclass(frozen=True)
class TaskCall:
    """One entry of a list of tasks. `key`: where it stands in the recipe; `history`: what chooses the events that its prompts
    show, with its arguments, or None where the split's window is shown."""

    key: str
    function: Callable[..., TaskRows]
    arguments: dict[str, Any]
    template: Template
    share: float
    history: tuple[Callable[..., Chosen], dict[str, Any]] | None

    def rows(self, materials: Materials, split: Split, part: Part) -> TaskRows:
        """The rows of a part of `split`."""
        chosen: dict[str, Any] = {}
        if self.history is not None:
            choose, arguments = self.history
            vectors = {"vectors": materials.vectors} if materials.wants_vectors(choose) else {}
            chosen = {"history": partial(choose, **vectors, **arguments)}
        return self.function(split, materials.index, part, **self.arguments, **chosen)

    def spec(self, materials: Materials) -> TaskSpec:
        """The task as what examples are made from."""
        return TaskSpec(
            self.function.__name__,
            lambda part: self.rows(materials, materials.split, part),
            self.template,
            self.share,
        )

    def fingerprint(self, materials: Materials) -> dict[str, Any]:
        """What fingerprints say of it: sources, arguments, stamps of files, the template, item vectors where they choose."""
        return {**self.text_fingerprint(materials), "share": self.share}

    def text_fingerprint(self, materials: Materials) -> dict[str, Any]:
        """What its texts depend on: all of that but its share of an epoch."""
        said: dict[str, Any] = {
            "call": self.function.__name__,
            "source": source_of(self.function),
            "template": self.template.hash,
        }
        said.update(inputs(self.arguments, without=materials.folder.path))
        said["inside"] = materials.inside(self.key, self.arguments)
        if self.history is not None:
            choose, arguments = self.history
            vectors = materials.vectors_stage.fingerprint if materials.wants_vectors(choose) else None
            own = inputs(arguments, without=materials.folder.path)
            said["history"] = [choose.__name__, source_of(choose), own, vectors]
        return said


def read_task(materials: Materials, key: str) -> TaskCall:
    """Check and bind the entry at `key`, such as 'tasks.0'. Raises ValueError or TypeError naming the key."""
    recipe = materials.recipe
    function = resolve_call(recipe, key)
    given, own = ("split", "index", "part", "history"), ("template", "share", "history")
    arguments = materials.nested(key, bind(recipe, key, function, given=given, own=own))
    share = section_at(recipe, key).get("share", 1.0)
    if isinstance(share, bool) or not isinstance(share, int | float) or share <= 0:
        raise ValueError(f"{recipe.where(f'{key}.share')}: got {share!r}, but it must be a number above 0.")
    history = history_call(recipe, key, function)
    if history is not None:
        materials.check_vectors(f"{key}.history", history[0], "chooses events by item vectors")
        history = history[0], materials.seeded(*history)
    return TaskCall(key, function, arguments, read_template(materials, key), float(share), history)


def read_template(materials: Materials, key: str) -> Template:
    """The template that the section at `key` names."""
    recipe = materials.recipe
    name = section_at(recipe, key).get("template")
    if not isinstance(name, str):
        raise TypeError(f"{recipe.where(f'{key}.template')}: got {name!r}, but it must be the name of a `.jinja` file.")
    try:
        return load_template(recipe.find(name, kind="templates"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{recipe.where(f'{key}.template')}: {error}") from None
