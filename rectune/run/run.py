"""A run: what is asked, the folder it lies in, and its boxes, built or loaded when they are first asked for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rectune.decoding.language_model import Ranker
from rectune.decoding.trie import Trie
from rectune.indexing.item_index import ItemIndex
from rectune.log.log import Log
from rectune.log.split import Part, Split
from rectune.methods.contract import Loading
from rectune.prompts.encoder import Encoder
from rectune.recipe.box import Box
from rectune.recipe.load import Recipe, load_recipe
from rectune.run.added_box import added_to
from rectune.run.asked import Asked, ask
from rectune.run.folder import BorrowedFolder, RunFolder, Stage
from rectune.run.line import line_of
from rectune.run.models import Models
from rectune.run.training_box import base_name
from rectune.runtime.processes import start_processes
from rectune.tasks.examples import TaskSpec
from rectune.tasks.rows import TaskRows
from rectune.tasks.task_calls import TaskCall, rows_of, specs_of
from rectune.vectors.item_vectors import ItemVectors

RESOLVED = "recipe.yaml"


class Run:
    """What is asked, held against a folder. `run[name]` is what a box of the line holds, `run.place(name)` where it lies; both
    build it where it is not there."""

    def __init__(self, asked: Asked, folder: RunFolder | None = None) -> None:
        """Raises ValueError when the recipe's `output_dir` holds something else."""
        start_processes()
        self.asked = asked
        self.folder = folder or RunFolder(Path(asked.recipe.settings["output_dir"]), asked.recipe.name)
        self.line = line_of(asked, without=self.folder.path)
        self.models = Models(self._ranker)
        self._boxes = {box.name: box for box in self.line}
        self._held: dict[str, Any] = {}
        self._places: dict[str, Stage] = {}

    @property
    def vectors(self) -> ItemVectors | None:
        """The item vectors, or None for a run that reads none."""
        return self["vectors"] if "vectors" in self._boxes else None

    def place(self, name: str) -> Stage:
        """Where a box of the line lies."""
        if name not in self._places:
            self._places[name] = self.place_of(self._boxes[name])
        return self._places[name]

    def place_of(self, box: Box) -> Stage:
        """Where a box lies, one of the line or one that reads it."""
        return self.folder.stage(box, [self.place(need) for need in box.needs], _Held(self, box.needs))

    def __getitem__(self, name: str) -> Any:
        """What a box of the line holds."""
        if name not in self._held:
            box = self._boxes[name]
            self._held[name] = box.load(_Held(self, box.needs), self.place(name).folder)
        return self._held[name]

    def load(self, box: Box) -> Any:
        """What a box holds that reads the line and is none of it."""
        return box.load(_Held(self, box.needs), self.place_of(box).folder)

    @property
    def log(self) -> Log:
        """The log, with the items that were added to the run."""
        log: Log = self["log"]
        return log

    @property
    def split(self) -> Split:
        """The split of the log."""
        split: Split = self["split"]
        return split

    @property
    def index(self) -> ItemIndex:
        """The item index, with the items that were added to the run."""
        index: ItemIndex = self["index"]
        return index

    @property
    def encoder(self) -> Encoder:
        """The encoder of the base's tokenizer, with the frame that was rendered when the base was made."""
        encoder: Encoder = self["base"]
        return encoder

    @property
    def trie(self) -> Trie | None:
        """The trie of the catalogue, or None for a task with fixed answers."""
        trie: Trie | None = self["trie"]
        return trie

    @cached_property
    def rows(self) -> TaskRows:
        """The test rows of the ranked task."""
        return self.rows_of("test")

    def rows_of(self, part: Part) -> TaskRows:
        """The rows of a part of the split for the ranked task."""
        return rows_of(self.asked.ranked, _Held(self, ("split", "index", "vectors")), part)

    def rows_of_split(self, split: Split) -> TaskRows:
        """The test rows of another split, such as one of histories from outside, for the ranked task."""
        ranked = self.asked.ranked
        return ranked.rows(split, self.index, "test", self["vectors"] if ranked.reads_vectors else None)

    def specs(self, tasks: Sequence[TaskCall]) -> list[TaskSpec]:
        """Tasks as what examples are made from."""
        return specs_of(tasks, _Held(self, ("split", "index", "vectors")))

    @property
    def tuned(self) -> Stage:
        """The last training."""
        return self.place(self.asked.trainings[-1].name)

    @cached_property
    def loading(self) -> Loading:
        """What a method loads this run's models with."""
        asked = self.asked
        return Loading(
            asked.model, self.place("base").folder, base_name(asked, _Held(self, ("base",))), self.split, self.index, self.encoder,
            asked.template, asked.rank, self.trie, asked.seed,
        )  # fmt: skip

    def _ranker(self, who: str) -> Ranker:
        if who not in ("untuned", "tuned"):
            raise KeyError(f"there is no model `{who}`; a run has `untuned` and `tuned`.")
        method = self.asked.trainings[-1].method
        return method.load(self.loading, None if who == "untuned" else self.tuned.folder / "model")


class _Held:
    """What a box is handed: a run's boxes, as far as it said that it needs them."""

    def __init__(self, run: Run, needs: tuple[str, ...]) -> None:
        self._run, self._needs = run, needs

    def __getitem__(self, name: str) -> Any:
        return self._run[self._needed(name)]

    def folder(self, name: str) -> Path:
        """The folder in which a box lies."""
        return self._run.place(self._needed(name)).folder

    def mark(self, name: str) -> str:
        """The fingerprint of a box."""
        return self._run.place(self._needed(name)).fingerprint

    def _needed(self, name: str) -> str:
        if name not in self._needs:
            raise KeyError(f"a box reads `{name}` and does not name it among its needs.")
        return name


def open_recipe(recipe: Recipe) -> Run:
    """The run of a recipe, checked; nothing is built."""
    return Run(ask(recipe))


def open_run(folder: str | Path, overrides: Any = (), *, added: bool = False, elsewhere: Path | None = None) -> Run:
    """Open a finished run folder; its boxes and templates are used as they are. Raises FileNotFoundError when it is none.

    `added`: with the items that `add_to_index` added. `elsewhere`: where to build what the folder lacks, of which nothing is then written.
    """
    path = Path(folder).resolve()
    about = json.loads((path / "run.json").read_text()) if (path / "run.json").exists() else {}
    if not (path / RESOLVED).exists() or "stages" not in about:
        raise FileNotFoundError(
            f"`{folder}` is not a finished run folder (it holds no {RESOLVED}). Run `rectune train RECIPE` first."
        )
    loaded = load_recipe(path / RESOLVED, [*overrides, ("output_dir", json.dumps(str(path)))])
    asked = ask(Recipe(about["recipe"], loaded.settings, loaded.lines, path / "templates"), need="ranking")
    asked = replace(asked, reads_vectors="vectors" in about["stages"])
    if asked.sasrec is not None and asked.sasrec.reads_vectors and not asked.reads_vectors:
        raise ValueError(f"{asked.where('sasrec.vectors')}: this run made no item vectors; its index reads none.")
    if added:
        asked = replace(asked, added=added_to(path, about["stages"]))
    run = Run(asked, None if elsewhere is None else BorrowedFolder(path, asked.recipe.name, elsewhere))
    run.folder.pinned = about["stages"]
    run.folder.on_other_code = lambda name: warnings.warn(
        f"`{name}` was made by other code than there is now; `rectune train` with `--rebuild {name}` makes it anew.",
        stacklevel=2,
    )
    return run
