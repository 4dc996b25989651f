"""What a method is: how a model is tuned, and how the tuned one ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from rectune.decoding.language_model import Ranker, RankSettings
from rectune.decoding.ranking import Ranking
from rectune.decoding.rollouts import Rollouts
from rectune.decoding.trie import Trie
from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Split
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Template
from rectune.tasks.examples import TaskSpec


@dataclass(frozen=True)
class Trainable:
    """What a method trains with.

    `load()` gives the model: the base with an adapter where the recipe asks for one, or what the stage before left. `new_tokens`: ids
    of the index vocabulary. `rank_validation(model, rows)`: metrics by name of so many validation rows. `search(model, rows, shelf, shards=folder)`:
    the lists of a model in training, kept in parts in the folder `shards`. `rollouts()`: groups of items of a model in training. `boxes`: folders
    of the boxes that the method asked for; `held`: the line's own that it `needs`, loaded.
    """

    load: Callable[[], Any]
    split: Split
    index: ItemIndex
    encoder: Encoder
    specs: list[TaskSpec]
    new_tokens: list[int]
    seed: int
    adapter: bool
    rank_validation: Callable[[Any, int], dict[str, float]]
    search: Callable[..., Ranking]
    rollouts: Callable[[], Rollouts]
    boxes: dict[str, Path] = field(default_factory=dict)
    held: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def model(self) -> Any:
        """What `load` gives; loaded when it is first asked for."""
        return self.load()


@dataclass(frozen=True)
class Loading:
    """What a method loads a model with: the run's boxes, and what the recipe says of ranking.

    `model`: the section of that name (`ModelSettings`); `base`: the folder of tokenizer and base, `base_name` its name in messages.
    """

    model: Any
    base: Path
    base_name: str
    split: Split
    index: ItemIndex
    encoder: Encoder
    template: Template
    rank: RankSettings
    trie: Trie | None
    seed: int


class Method(Protocol):
    """A module of this folder, or one of your own.

    `boxes(section, seed) -> list[Box]`, where there is one, gives boxes of its own: they are built before the training, which finds
    their folders in `Trainable.boxes`. `check_base(config)`, where there is one, raises ValueError for a base that the method cannot train;
    it is asked before anything is built. `searches(section)`, where there is one, says whether the training calls `Trainable.search`
    or `Trainable.rollouts`. `needs(section)` gives names of the line's boxes that it reads, `vectors` or `prior`, and `made_by(section)` functions
    whose code is the training's as well. `READS_TREES`, where it is true: examples of one group are read once where they begin alike (`examples: tree`).
    `check_asked(config, tasks, ranked, beams)`, where there is one, raises ValueError for what does not go together; nothing is built yet. `check_rows(config, tasks)`, where there is one, does so for the training
    rows of its tasks, pairs of `TaskSpec` and `TaskRows`, before the base is loaded. `load` with None instead of a folder gives the model before it was tuned. `export(given, folder, to)`, where there
    is one, writes what a bundle needs; without it the tuned model is one that transformers loads.
    """

    Config: type

    def config_defaults(self, given: dict[str, Any], *, cpu: bool, seed: int) -> dict[str, Any]:
        """The keys of the stage with what is filled in."""

    def train(self, task: Trainable, config: Any, folder: Path) -> None:
        """Tune, and leave in `folder`: `model/`, `log_history.json`, `audit.json`. A killed training goes on from what it left."""

    def load(self, given: Loading, folder: Path | None) -> Ranker:
        """The tuned model in `folder`, or the untuned one, as a ranker."""


NEEDED = ("Config", "config_defaults", "train", "load")


def check_method(module: Any, where: str) -> Method:
    """Return the module where it is a method. Raises ValueError naming what it lacks."""
    missing = [name for name in NEEDED if not hasattr(module, name)]
    if missing:
        needed = ", ".join(f"`{name}`" for name in NEEDED)
        raise ValueError(
            f"{where}: a method is a module with {needed}; it has no {', '.join(f'`{n}`' for n in missing)}."
        )
    method: Method = module
    return method
