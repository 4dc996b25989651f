"""The first boxes of a recipe's line: log, split, item vectors and index, each built or loaded from its stage."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rectune.decoding.language_model import LanguageModelRanker
from rectune.indexing.added import Added
from rectune.indexing.health import judged
from rectune.indexing.item_index import ItemIndex
from rectune.log.few_shots import few_shots
from rectune.log.log import Log
from rectune.log.split import Split
from rectune.recipe.calls import bind, resolve_call
from rectune.recipe.fingerprints import name_of, source_of
from rectune.recipe.load import Recipe
from rectune.run.folder import RunFolder, Stage
from rectune.runtime.files import inputs, stamps
from rectune.runtime.processes import start_processes
from rectune.vectors.item_vectors import ItemVectors, join, refuse_alike


@dataclass
class Materials:
    """What a recipe tunes a model on; each is built, or loaded from its stage, when it is first asked for."""

    recipe: Recipe
    added: Added | None = None

    def __post_init__(self) -> None:
        self.folder = RunFolder(Path(self.recipe.settings["output_dir"]), self.recipe.name)
        self.loaded: dict[str, LanguageModelRanker] = {}
        start_processes()

    @property
    def seed(self) -> int:
        """The seed of the recipe."""
        return int(self.recipe.settings["seed"])

    # ------------------------------------------------------------------------------------------------ log and split

    @cached_property
    def _data_call(self) -> tuple[Callable[..., Log], dict[str, Any]]:
        function = resolve_call(self.recipe, "data")
        arguments = bind(self.recipe, "data", function, given=("seed",))
        return function, arguments

    @cached_property
    def data_stage(self) -> Stage:
        """The stage that holds the log."""
        if kept := self.folder.kept("log"):
            return kept
        function, arguments = self._data_call
        keys: dict[str, Any] = {"call": name_of(function), "source": source_of(function)}
        keys.update(inputs(arguments, without=self.folder.path))
        if "seed" in inspect.signature(function).parameters:
            arguments = {**arguments, "seed": self.seed}
            keys["seed"] = self.seed
        return self.folder.stage("log", keys, [], lambda work: function(**arguments).save(work))

    @cached_property
    def log(self) -> Log:
        """The log, with the items that were added to the run where `added` is set."""
        log = Log.load(self.data_stage.folder)
        return log if self.added is None else self.added.log(log)

    @cached_property
    def _split_call(self) -> tuple[Callable[..., Split], dict[str, Any]]:
        function = resolve_call(self.recipe, "split")
        bound = bind(self.recipe, "split", function, given=("log",), own=("shots",))
        return function, self.seeded(function, bound)

    @cached_property
    def split_stage(self) -> Stage:
        """The stage that holds the split."""
        if kept := self.folder.kept("split"):
            return kept
        function, arguments = self._split_call
        keys: dict[str, Any] = {"call": name_of(function), "source": source_of(function), "arguments": arguments}
        shots = self.recipe.settings["split"].get("shots")
        if shots is not None:
            keys["shots"] = [shots, self.seed, source_of(few_shots)]

        def build(work: Path) -> None:
            whole = function(self.log, **arguments)
            (whole if shots is None else few_shots(whole, shots, self.seed)).save(work)

        return self.folder.stage("split", keys, [self.data_stage], build)

    @cached_property
    def split(self) -> Split:
        """The split of the log."""
        return Split.load(self.split_stage.folder, self.log)

    # ---------------------------------------------------------------------------------------------- vectors and index

    @cached_property
    def vector_calls(self) -> list[tuple[Callable[..., ItemVectors], dict[str, Any]]]:
        """For each source of item vectors its function and bound arguments."""
        calls = []
        for i in range(len(self.recipe.settings.get("vectors") or [])):
            function = resolve_call(self.recipe, f"vectors.{i}")
            calls.append(
                (function, self.seeded(function, bind(self.recipe, f"vectors.{i}", function, given=("split",))))
            )
        return calls

    @cached_property
    def vectors_stage(self) -> Stage:
        """The stage that holds the item vectors of all sources, side by side."""
        if kept := self.folder.kept("vectors"):
            return kept
        keys = [
            [f.__module__, f.__name__, source_of(f), inputs(arguments, without=self.folder.path)]
            for f, arguments in self.vector_calls
        ]

        def build(work: Path) -> None:
            parts = [refuse_alike(function(self.split, **arguments)) for function, arguments in self.vector_calls]
            join(parts).of(self.log.items["item_id"].to_list()).save(work)

        return self.folder.stage("vectors", {"sources": keys}, [self.split_stage], build)

    @cached_property
    def vectors(self) -> ItemVectors:
        """The item vectors, kept for as long as histories are chosen by them."""
        return ItemVectors.load(self.vectors_stage.folder)

    def seeded(self, function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments, with the recipe's seed for a function that takes one and was given none."""
        return {"seed": self.seed, **arguments} if "seed" in inspect.signature(function).parameters else arguments

    @cached_property
    def _index_call(self) -> tuple[Callable[..., ItemIndex], dict[str, Any]]:
        if self.recipe.settings.get("index") is None:
            self.recipe.settings["index"] = {"call": "titles"}
        function = resolve_call(self.recipe, "index")
        bound = bind(self.recipe, "index", function, given=("split", "vectors"), own=("user_tokens",))
        arguments = self.seeded(function, self.nested("index", bound))
        self.check_vectors("index", function, "names items by their vectors")
        return function, arguments

    @property
    def _user_tokens(self) -> int:
        count = self.recipe.settings["index"].get("user_tokens", 0)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(
                f"{self.recipe.where('index.user_tokens')}: got {count!r}; it must be a whole number from 0 on."
            )
        return count

    def check_vectors(self, key: str, function: Callable[..., Any], why: str) -> None:
        """Raise ValueError where a function needs item vectors and the recipe has none."""
        if self.wants_vectors(function) and not self.recipe.settings.get("vectors"):
            raise ValueError(
                f"{self.recipe.where(f'{key}.call')}: `{function.__name__}` {why}. Add a section, e.g. "
                "vectors: [{call: sentences, text: [title]}]"
            )

    @staticmethod
    def wants_vectors(function: Callable[..., Any]) -> bool:
        return "vectors" in inspect.signature(function).parameters

    @cached_property
    def index_stage(self) -> Stage:
        """The stage that holds the item index."""
        if kept := self.folder.kept("index"):
            return kept
        function, arguments = self._index_call
        keys: dict[str, Any] = {"call": name_of(function), "source": source_of(function)}
        keys.update(inputs(arguments, without=self.folder.path), user_tokens=self._user_tokens)
        keys["inside"] = self.inside("index", arguments)
        needed = [self.vectors_stage] if self.wants_vectors(function) else []

        def build(work: Path) -> None:
            given = {"vectors": ItemVectors.load(self.vectors_stage.folder)} if needed else {}
            index = function(self.split, **given, **arguments)
            index.health.update(judged(index, self.split))
            (index.with_user_tokens(self._user_tokens) if self._user_tokens else index).save(work)

        return self.folder.stage("index", keys, [self.split_stage, *needed], build)

    @cached_property
    def index(self) -> ItemIndex:
        """The item index, with the items that were added to the run where `added` is set."""
        index = ItemIndex.load(self.index_stage.folder)
        return index if self.added is None else self.added.index(index)

    def nested(self, key: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments with what names a callable itself checked by its signature, and its paths found."""
        out = dict(arguments)
        for name, value in arguments.items():
            if isinstance(value, dict) and "call" in value:
                function = resolve_call(self.recipe, f"{key}.{name}")
                parameters = inspect.signature(function).parameters.values()
                later = [p.name for p in parameters if p.default is p.empty and p.name not in value]
                bound = bind(self.recipe, f"{key}.{name}", function, given=later)
                out[name] = {
                    "call": name_of(function),
                    **{k: str(v) if isinstance(v, Path) else v for k, v in bound.items()},
                }
        return out

    def inside(self, key: str, arguments: dict[str, Any]) -> list[Any]:
        """For arguments that name a callable themselves: its source, and stamps of the files that it is given."""
        named = [name for name, value in arguments.items() if isinstance(value, dict) and "call" in value]
        return [
            [
                name,
                source_of(resolve_call(self.recipe, f"{key}.{name}")),
                stamps(arguments[name], without=self.folder.path),
            ]
            for name in named
        ]
