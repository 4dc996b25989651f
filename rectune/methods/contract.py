"""What a method is: how a model is tuned, and how the tuned one ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from rectune.recipe.box import Box
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
    """A module of this folder, or one of your own."""

    Config: type

    def config_defaults(self, given: dict[str, Any], *, cpu: bool, seed: int) -> dict[str, Any]:
        """The keys of the stage with what is filled in."""

    def train(self, task: Trainable, config: Any, folder: Path) -> None:
        """Tune, and leave in `folder`: `model/`, `log_history.json`, `audit.json`. A killed training goes on from what it left."""

    def load(self, given: Loading, folder: Path | None) -> Ranker:
        """The tuned model in `folder`, or with None the untuned one, as a ranker."""


class MethodMay(Protocol):
    """What a method may define as well."""

    READS_TREES: bool  # examples of one group are read once where they begin alike (`examples: tree`)

    def boxes(self, section: dict[str, Any], seed: int) -> list[Box]:
        """Boxes of its own: they are built before the training, which finds their folders in `Trainable.boxes`."""

    def needs(self, section: dict[str, Any]) -> tuple[str, ...]:
        """The line's boxes that it reads beside the usual ones, `vectors` or `prior`; it finds them in `Trainable.held`."""

    def made_by(self, section: dict[str, Any]) -> tuple[Any, ...]:
        """Functions whose code is the training's as well."""

    def searches(self, section: dict[str, Any]) -> bool:
        """Whether the training calls `Trainable.search` or `Trainable.rollouts`."""

    def check_base(self, config: Any) -> None:
        """Raise ValueError for a base that it cannot train, by its transformers config; asked before anything is built."""

    def check_asked(self, config: Any, tasks: Sequence[Any], ranked: Any, beams: int) -> None:
        """Raise ValueError for keys, tasks, the ranked task and lists of `beams` items that do not go together; nothing is built yet."""

    def check_rows(self, config: Any, tasks: Sequence[Any]) -> None:
        """Raise ValueError for training rows that it cannot train, pairs of `TaskSpec` and `TaskRows`; the base is not loaded yet."""

    def export(self, given: Loading, folder: Path, to: Path) -> None:
        """Write what a bundle needs into `to`; without this the tuned model is one that transformers loads."""
