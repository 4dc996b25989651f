"""The straight line: recipe -> log -> split -> index -> examples -> stages -> ranked lists -> report."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rectune
from rectune.checking import check_keywords
from rectune.encoder import Encoder
from rectune.evidence import HIDDEN, SHOWN, Evidence, Report
from rectune.examples import Mixture, TaskSpec, sample_texts
from rectune.indexing.item_index import ItemIndex
from rectune.log import Log
from rectune.processes import is_main, wait
from rectune.ranker import LanguageModelRanker, RankSettings, catalogue_trie
from rectune.ranking import Ranking
from rectune.recipe import Recipe, bind, load_recipe, resolve_call, section_at
from rectune.run_folder import RunFolder, Stage, source_of, stamp, write_atomic
from rectune.split import Rows, Split
from rectune.tasks import ItemViews, TaskRows, history_split
from rectune.template import Template, load_template

RESOLVED = "recipe.yaml"


def train(recipe: Recipe | str | Path, overrides: Sequence[tuple[str, str]] = ()) -> Path:
    """Run a recipe from log to report, or continue where it stopped. Returns the run folder.

    Stages that are already there are not built again. Raises ValueError, TypeError or OSError with one clear line
    when the recipe, its data or the folder are not as they must be.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    line = Line(recipe)
    with line.folder.lock():
        line.check()
        line.tuned  # noqa: B018  builds everything up to the tuned model
        _keep_recipe(line)
        _report(line)
    return line.folder.path


def evaluate(folder: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> Path:
    """Rank and report again in a run folder, with other keys of `rank` or `eval`. Returns the folder."""
    line = open_run(folder, overrides)
    with line.folder.lock():
        line.check()
        line.tuned  # noqa: B018  raises where nothing is trained
        _keep_recipe(line)
        _report(line)
    return line.folder.path


def train_seeds(path: str | Path, overrides: Sequence[tuple[str, str]], seeds: Sequence[int]) -> Path:
    """Run a recipe once for each seed, in `seed-N` folders of its output folder, and sum the reports up there."""
    folder = Path(load_recipe(path, overrides).settings["output_dir"])
    for seed in seeds:
        train(load_recipe(path, [*overrides, ("seed", str(seed)), ("output_dir", str(folder / f"seed-{seed}"))]))
    if is_main():
        reports = [json.loads((folder / f"seed-{seed}" / "report.json").read_text()) for seed in seeds]
        judge = inspect.getmodule(resolve_call(load_recipe(path, overrides), "eval"))
        summary: Report = judge.summarise(reports, seeds)  # type: ignore[union-attr]
        write_atomic(folder / "seeds.json", json.dumps(summary.data, indent=1))
        write_atomic(folder / "report.html", summary.page)
        print(summary.text)
    wait()
    return folder


def open_run(folder: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> Line:
    """Open a run folder. Raises FileNotFoundError when it is none."""
    path = Path(folder)
    if not (path / RESOLVED).exists():
        raise FileNotFoundError(f"`{folder}` is not a finished run folder (it holds no {RESOLVED}). Run `rectune train RECIPE` first.")
    about = json.loads((path / "run.json").read_text())
    loaded = load_recipe(path / RESOLVED, [*overrides, ("output_dir", str(path))])
    home = Path(about["recipe_folder"]) if about.get("recipe_folder") else None
    line = Line(Recipe(about["recipe"], loaded.settings, loaded.lines, home))
    line.folder.must_hold = "train"
    return line


def recommend(
    folder: str | Path, histories: Sequence[Sequence[str]], *, k: int | None = None, by: str = "item_id", hide_seen: bool = True
) -> list[list[dict[str, Any]]]:
    """Recommend after each history (oldest first), given by item ids or, with `by='title'`, by titles.

    Returns for each history a list of {'item_id', 'title', 'score'}, best first. Raises ValueError for an unknown
    item (with near misses), or a `k` above `rank.beams` or the catalogue.
    """
    line = open_run(folder)
    if line.task.kind != "item":
        raise ValueError(f"{folder}: this run answers Yes/No about one item; it has no catalogue ranking to recommend from.")
    k = line.rank_settings.k if k is None else k
    line.check_k(k)
    codes = [line.item_codes(history, by) for history in histories]
    split = history_split(line.split, codes)
    hidden = [sorted(set(history)) if hide_seen else [] for history in codes]
    ranking = line.ranker("tuned").rank(line.task_rows(split), hidden=hidden)
    items = line.log.items
    return [
        [
            {"item_id": items["item_id"][int(item)], "title": items["title"][int(item)], "score": float(score)}
            for item, score in zip(row[:k], scores[:k], strict=True)
            if item >= 0
        ]
        for row, scores in zip(ranking.items, ranking.scores, strict=True)
    ]


@dataclass
class Line:
    """All boxes of one recipe's line; each is built, or loaded from its stage, when it is first asked for."""

    recipe: Recipe

    def __post_init__(self) -> None:
        self.folder = RunFolder(Path(self.recipe.settings["output_dir"]), self.recipe.name)

    def check(self) -> None:
        """Check every section before anything is built."""
        from rectune.model import model_settings

        _ = self._data_call, self._split_call, self._index_call, self.rank_settings, self.rank_template
        for entry in self._task_calls:
            _ = entry
        _ = model_settings(self.recipe)
        for i in range(len(self.recipe.settings["stages"])):
            self.stage_config(i)
        function = resolve_call(self.recipe, "eval")
        bind(self.recipe, "eval", function, given=("evidence",))

    # ------------------------------------------------------------------------------------------------ log and split

    @cached_property
    def _data_call(self) -> tuple[Callable[..., Log], dict[str, Any]]:
        function = resolve_call(self.recipe, "data")
        arguments = bind(self.recipe, "data", function, given=("seed",))
        return function, arguments

    @cached_property
    def data_stage(self) -> Stage:
        """The stage that holds the log."""
        function, arguments = self._data_call
        files = {name: stamp(value) for name, value in arguments.items() if isinstance(value, Path)}
        keys = {"call": self.recipe.settings["data"]["call"], "source": source_of(function), "files": files}
        keys["arguments"] = {n: v for n, v in arguments.items() if n not in files}
        if "seed" in inspect.signature(function).parameters:
            arguments = {**arguments, "seed": self.seed}
            keys["seed"] = self.seed
        return self.folder.stage("log", keys, [], lambda work: function(**arguments).save(work))

    @cached_property
    def log(self) -> Log:
        """The log."""
        return Log.load(self.data_stage.folder)

    @cached_property
    def _split_call(self) -> tuple[Callable[..., Split], dict[str, Any]]:
        function = resolve_call(self.recipe, "split")
        return function, bind(self.recipe, "split", function, given=("log",))

    @cached_property
    def split_stage(self) -> Stage:
        """The stage that holds the split."""
        function, arguments = self._split_call
        keys = {"call": self.recipe.settings["split"]["call"], "source": source_of(function), "arguments": arguments}
        return self.folder.stage("split", keys, [self.data_stage], lambda work: function(self.log, **arguments).save(work))

    @cached_property
    def split(self) -> Split:
        """The split of the log."""
        return Split.load(self.split_stage.folder, self.log)

    # -------------------------------------------------------------------------------------------------------- index

    @cached_property
    def _index_call(self) -> tuple[Callable[..., ItemIndex], dict[str, Any]]:
        if self.recipe.settings.get("index") is None:
            self.recipe.settings["index"] = {"call": "rectune.indexing.titles:titles"}
        function = resolve_call(self.recipe, "index")
        arguments = bind(self.recipe, "index", function, given=("split",))
        if "seed" in inspect.signature(function).parameters:
            arguments.setdefault("seed", self.seed)
        return function, arguments

    @cached_property
    def index_stage(self) -> Stage:
        """The stage that holds the item index."""
        function, arguments = self._index_call
        keys = {"call": self.recipe.settings["index"]["call"], "source": source_of(function), "arguments": arguments}
        keys["files"] = [stamp(value) for value in arguments.values() if isinstance(value, Path)]
        return self.folder.stage("index", keys, [self.split_stage], lambda work: function(self.split, **arguments).save(work))

    @cached_property
    def index(self) -> ItemIndex:
        """The item index."""
        return ItemIndex.load(self.index_stage.folder)

    # ------------------------------------------------------------------------------------------- tasks and templates

    @cached_property
    def _task_calls(self) -> list[tuple[Callable[..., TaskRows], dict[str, Any], Template, float]]:
        calls = []
        for i, entry in enumerate(self.recipe.settings["tasks"]):
            function = resolve_call(self.recipe, f"tasks.{i}")
            arguments = bind(self.recipe, f"tasks.{i}", function, given=("split", "index", "part"), own=("template", "share"))
            share = entry.get("share", 1.0)
            if isinstance(share, bool) or not isinstance(share, int | float) or share <= 0:
                raise ValueError(f"{self.recipe.where(f'tasks.{i}.share')}: got {share!r}, but it must be a number above 0.")
            calls.append((function, arguments, self._template(f"tasks.{i}"), float(share)))
        return calls

    def _template(self, key: str) -> Template:
        name = section_at(self.recipe, key).get("template")
        if not isinstance(name, str):
            raise TypeError(f"{self.recipe.where(f'{key}.template')}: got {name!r}, but it must be the name of a `.jinja` file.")
        try:
            return load_template(self.recipe.find(name, kind="templates"))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.recipe.where(f'{key}.template')}: {error}") from None

    @cached_property
    def specs(self) -> list[TaskSpec]:
        """The tasks of the recipe."""
        return [
            TaskSpec(function.__name__, partial(self._rows_of, function, arguments), template, share)
            for function, arguments, template, share in self._task_calls
        ]

    def _rows_of(self, function: Callable[..., TaskRows], arguments: dict[str, Any], part: str) -> TaskRows:
        return function(self.split, self.index, part, **arguments)

    def task_rows(self, split: Split) -> TaskRows:
        """The test rows of `split` for the ranked task, which is the first task of the recipe."""
        function, arguments, _, _ = self._task_calls[0]
        return function(split, self.index, "test", **arguments)

    @cached_property
    def task(self) -> TaskRows:
        """The test rows of the ranked task."""
        return self.task_rows(self.split)

    @cached_property
    def rank_settings(self) -> RankSettings:
        """The section `rank`."""
        keys = check_keywords(RankSettings, self.recipe.settings["rank"], lambda k: self.recipe.where(f"rank.{k}"), given=())
        return RankSettings(**keys)

    @cached_property
    def rank_template(self) -> Template:
        """The template that ranking uses. Raises ValueError when its wording does not exist or it was not trained."""
        template = self._template("rank")
        if self.rank_settings.wording >= template.wordings:
            raise ValueError(f"{self.recipe.where('rank.wording')}: {template.name} has wordings 0 to {template.wordings - 1}.")
        if template.hash != self._task_calls[0][2].hash:
            raise ValueError(
                f"{self.recipe.where('rank.template')}: the first task trains `{self._task_calls[0][2].name}`, but ranking would "
                f"prompt with `{template.name}`. One prompt for all stages: name the same template in both."
            )
        return template

    # -------------------------------------------------------------------------------------------------------- model

    @property
    def seed(self) -> int:
        """The seed of the recipe."""
        return int(self.recipe.settings["seed"])

    @cached_property
    def model_settings(self) -> Any:
        """The section `model`."""
        from rectune.model import model_settings

        return model_settings(self.recipe)

    @cached_property
    def base_stage(self) -> Stage:
        """The stage that holds the tokenizer with the new tokens, and the base itself if it is made from scratch."""
        from rectune.model import base_identity, build_base

        keys: dict[str, Any] = {"base": base_identity(self.model_settings)}
        if self.model_settings.from_scratch is not None:
            keys.update(seed=self.seed, tasks=self._task_keys)
        texts = sample_texts(self.specs, most=20_000)
        build = partial(build_base, self.model_settings, self.index, texts, seed=self.seed)
        return self.folder.stage("base", keys, [self.index_stage], lambda work: build(work))

    @cached_property
    def _task_keys(self) -> list[Any]:
        return [
            [function.__name__, source_of(function), arguments, template.hash, share]
            for function, arguments, template, share in self._task_calls
        ]

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the base's tokenizer."""
        from rectune.model import load_tokenizer

        return Encoder(load_tokenizer(self.base_stage.folder), self.index.vocabulary, form=self.model_settings.prompt_form)

    # ------------------------------------------------------------------------------------------------------- stages

    def stage_config(self, i: int) -> tuple[Any, Any]:
        """The method module of stage i and its checked Config."""
        from rectune.library_config import library_config
        from rectune.model import pick_device

        key = f"stages.{i}"
        module = resolve_call(self.recipe, key)
        for needed in ("Config", "train", "config_defaults"):
            if not hasattr(module, needed):
                raise ValueError(f"{self.recipe.where(f'{key}.call')}: a method is a module with `Config`, `train` and `config_defaults`.")
        section = {k: v for k, v in self.recipe.settings["stages"][i].items() if k != "call"}
        cpu = pick_device(self.model_settings).type == "cpu"
        filled = module.config_defaults(section, cpu=cpu, seed=self.seed)
        return module, library_config(module.Config, filled, self.recipe, key)

    @cached_property
    def train_stages(self) -> list[Stage]:
        """The training stages, each starting from the one before."""
        done: list[Stage] = []
        for i in range(len(self.recipe.settings["stages"])):
            done.append(self._train_stage(i, done[-1] if done else self.base_stage))
        return done

    def _train_stage(self, i: int, before: Stage) -> Stage:
        from rectune.model import settings_for_fingerprint

        section = self.recipe.settings["stages"][i]
        keys: dict[str, Any] = {"stage": section, "tasks": self._task_keys, "model": settings_for_fingerprint(self.model_settings)}
        keys["seed"] = self.seed
        if section.get("eval_strategy", "no") != "no":
            keys["rank"] = [self.rank_settings.wording, self.rank_settings.beams, self.rank_settings.scores]
        return self.folder.stage(
            f"train{i}", keys, [before, self.base_stage, self.index_stage, self.split_stage],
            partial(self._train, i, before), resumes=True,
        )  # fmt: skip

    def _train(self, i: int, before: Stage, work: Path) -> None:
        from rectune.methods.trainable import Trainable
        from rectune.model import load_base, load_tuned, new_token_ids, with_adapter

        module, config = self.stage_config(i)
        settings, base = self.model_settings, self.base_stage.folder
        tokens = new_token_ids(self.encoder.tokenizer, self.index)
        if before is not self.base_stage:
            model = load_tuned(settings, base, before.folder / "model", self.index, seed=self.seed, trainable=True)
        else:
            model = load_base(settings, base, self.index, seed=self.seed)
            if settings.library.use_peft:
                model = with_adapter(model, settings, tokens, seed=self.seed)
        adapter = bool(settings.library.use_peft)
        started = time.perf_counter()
        module.train(Trainable(model, self.encoder, self.specs, tokens, self.seed, adapter, self._rank_validation), config, work)
        if is_main():
            card = {"template": self.rank_template.hash, "base": base_name(self), "seconds": time.perf_counter() - started}
            write_atomic(work / "model" / "rectune.json", json.dumps(card))

    @property
    def tuned(self) -> Stage:
        """The last training stage."""
        return self.train_stages[-1]

    # ------------------------------------------------------------------------------------------------------ ranking

    @cached_property
    def trie(self) -> Any:
        """The trie of the catalogue, or None for a task with fixed answers."""
        if self.task.kind != "item":
            return None
        view = ItemViews(self.split, self.index)
        views = [view(item) for item in range(len(self.index))]
        return catalogue_trie(self.encoder, self.rank_template, self.task, self.rank_settings.wording, views)

    def ranker(self, who: str) -> LanguageModelRanker:
        """The 'untuned' or the 'tuned' model as a ranker. Raises ValueError when what was tuned does not fit the run."""
        from rectune.methods.token_audit import check_reloaded
        from rectune.model import load_base, load_tuned

        settings, base = self.model_settings, self.base_stage.folder
        if who == "untuned":
            return self._as_ranker(load_base(settings, base, self.index, seed=self.seed))
        tuned = self.tuned.folder / "model"
        check_origin(self, tuned)
        model = load_tuned(settings, base, tuned, self.index, seed=self.seed)
        check_reloaded(model, tuned)
        return self._as_ranker(model)

    def _as_ranker(self, model: Any) -> LanguageModelRanker:
        return LanguageModelRanker(model, self.encoder, self.rank_template, self.rank_settings, self.trie)

    def check_k(self, k: int) -> None:
        """Raise ValueError for a list length that the search or the catalogue cannot give."""
        if not 1 <= k <= self.rank_settings.beams:
            raise ValueError(f"k = {k}, but it must be from 1 to `rank.beams` = {self.rank_settings.beams}.")
        if self.task.kind == "item" and k > self.log.n_items:
            raise ValueError(f"k = {k}, but the catalogue holds only {self.log.n_items} items.")

    def item_codes(self, history: Sequence[str], by: str) -> list[int]:
        """Item codes of ids or titles. Raises ValueError for one that the catalogue does not hold."""
        from rectune.checking import near

        known = self._codes_by(by)
        for name in history:
            if name not in known:
                raise ValueError(f"the catalogue has no item with {by} `{name}`.{near(name, known) if len(known) < 50_000 else ''}"[:400])
        return [known[name] for name in history]

    def _codes_by(self, by: str) -> dict[str, int]:
        return {name: code for code, name in reversed(list(enumerate(self.log.items[by].to_list())))}

    @property
    def _rank_keys(self) -> dict[str, Any]:
        settings = self.rank_settings
        return {
            "template": self.rank_template.hash, "wording": settings.wording, "beams": settings.beams, "scores": settings.scores,
            "max_length": settings.max_length, "batch_size": settings.batch_size, "task": self._task_keys[0],
        }  # fmt: skip

    def ranked(self, who: str, protocol: str, *, shuffled: int = 0) -> tuple[Ranking, dict[str, Any]]:
        """The lists of a model for the test rows, and what ranking them took.

        `shuffled` above 0 ranks only a sample of so many rows, each with its history in random order.
        """
        rows, task = (self.split.test, self.task) if not shuffled else self._shuffled_rows(shuffled)
        hidden = [self.split.seen(rows, i).tolist() for i in range(len(rows))] if protocol == HIDDEN else None
        model = self.tuned if who == "tuned" else self.base_stage
        keys = {**self._rank_keys, "who": who, "hidden": protocol == HIDDEN, "shuffled": shuffled}

        def build(work: Path) -> None:
            started = time.perf_counter()
            shards = work / "shards"
            shards.mkdir(exist_ok=True)
            ranking = self._loaded(who).rank(task, hidden=hidden, shards=shards)
            if is_main():
                ranking.save(work / "ranking.parquet")
                (work / "measured.json").write_text(json.dumps({"seconds": time.perf_counter() - started, "rows": len(rows)}))

        stage = self.folder.stage(f"rank-{who}", keys, [model, self.base_stage, self.index_stage], build, resumes=True)
        return Ranking.load(stage.folder / "ranking.parquet"), json.loads((stage.folder / "measured.json").read_text())

    def answered(self, who: str) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Probability of the last answer (yes) for the test rows, shape (rows,), and what it took."""
        model = self.tuned if who == "tuned" else self.base_stage

        def build(work: Path) -> None:
            started = time.perf_counter()
            chances = self._loaded(who).answer(self.task)
            if is_main():
                np.save(work / "answers.npy", chances)
                (work / "measured.json").write_text(json.dumps({"seconds": time.perf_counter() - started, "rows": len(self.task)}))

        keys = {**self._rank_keys, "who": who}
        stage = self.folder.stage(f"answer-{who}", keys, [model, self.base_stage, self.index_stage], build, resumes=True)
        return np.load(stage.folder / "answers.npy")[:, -1], json.loads((stage.folder / "measured.json").read_text())

    def _loaded(self, who: str) -> LanguageModelRanker:
        """The ranker, kept for the next ranking by the same model."""
        if getattr(self, "_kept", ("", None))[0] != who:
            self._kept: tuple[str, Any] = (who, self.ranker(who))
        kept: LanguageModelRanker = self._kept[1]
        return kept

    def _shuffled_rows(self, most: int) -> tuple[Rows, TaskRows]:
        """A sample of test rows whose histories are in random order, under the same row numbers."""
        from rectune.model import seeded

        rows = self.shuffled_sample(most)
        histories = []
        for i in range(len(rows)):
            history = self.split.history(rows, i).copy()
            seeded(self.seed, "shuffle", int(rows.row[i])).shuffle(history)
            histories.append(history.tolist())
        task = self.task_rows(history_split(self.split, histories))
        return rows, TaskRows(rows.row, task.variables, task.kind, self.split.targets(rows), task.answers)

    def shuffled_sample(self, most: int) -> Rows:
        """The test rows that `ranked(..., shuffled=most)` ranks."""
        test = self.split.test
        return test.take(np.unique(np.linspace(0, len(test) - 1, num=min(most, len(test)), dtype=np.int64)))

    def _rank_validation(self, model: Any, most: int) -> dict[str, float]:
        """Ranking metrics of a model in training on a sample of validation rows."""
        from rectune.validation import validation_metrics

        function, arguments, _, _ = self._task_calls[0]
        rows = function(self.split, self.index, "validation", **arguments)
        chosen = np.unique(np.linspace(0, len(rows) - 1, num=min(most, len(rows)), dtype=np.int64))
        sample = TaskRows(rows.row[chosen], lambda i: rows.variables(int(chosen[i])), rows.kind, rows.target[chosen], rows.answers)
        ranker = self._as_ranker(model)
        ranker.progress = False
        return validation_metrics(ranker, sample)


def base_name(line: Line) -> str:
    """The name of the base: of the checkpoint, or the fingerprint of a base made from scratch."""
    settings = line.model_settings
    return str(settings.library.model_name_or_path) if settings.from_scratch is None else line.base_stage.fingerprint


def check_origin(line: Line, tuned: Path) -> None:
    """Raise ValueError when a tuned model was made with another prompt or on another base than this run's."""
    card = json.loads((tuned / "rectune.json").read_text())
    if card["template"] != line.rank_template.hash:
        raise ValueError(f"{tuned} was tuned with another text of `{line.rank_template.name}` than it is now. Restore the template or train again.")
    if card["base"] != base_name(line):
        raise ValueError(f"{tuned} was tuned on the base `{card['base']}`, but the recipe now names `{base_name(line)}`.")


# ------------------------------------------------------------------------------------------------------------- report


def _report(line: Line) -> None:
    """Rank with both models, let the recipe's `eval` judge, and write report.json and report.html."""
    function = resolve_call(line.recipe, "eval")
    arguments = bind(line.recipe, "eval", function, given=("evidence",))
    if line.task.kind == "item":
        line.check_k(max(arguments.get("k") or [line.rank_settings.k]))
    evidence = gather_evidence(line, shuffled=int(arguments.get("shuffled_rows", 1000)))
    line.__dict__.pop("_kept", None)
    if is_main():
        report: Report = function(evidence, **arguments)
        write_atomic(line.folder.path / "report.json", json.dumps(report.data, indent=1, default=_plain))
        write_atomic(line.folder.path / "report.html", report.page)
        print(report.text)
        print(f"report: {line.folder.path / 'report.html'}")
    wait()


def gather_evidence(line: Line, *, shuffled: int) -> Evidence:
    """Everything a report is made of, from the stages of a run."""
    measured: dict[str, Any] = {}
    rankings: dict[tuple[str, str], Ranking] = {}
    answers: dict[str, NDArray[np.float64]] = {}
    for who in ("untuned", "tuned"):
        if line.task.kind == "answer":
            answers[who], measured[f"answers, {who}"] = line.answered(who)
            continue
        for protocol in (HIDDEN, SHOWN):
            rankings[who, protocol], measured[f"ranking, {who}, {protocol}"] = line.ranked(who, protocol)
    sample, shuffled_ranking = None, None
    if shuffled and line.task.kind == "item":
        sample = line.shuffled_sample(shuffled)
        shuffled_ranking, measured["ranking, tuned, shuffled"] = line.ranked("tuned", HIDDEN, shuffled=shuffled)
    training = [json.loads((stage.folder / "log_history.json").read_text()) for stage in line.train_stages]
    audits = [json.loads((stage.folder / "audit.json").read_text()) for stage in line.train_stages]
    for i, stage in enumerate(line.train_stages):
        measured[f"training, stage {i}"] = {"seconds": json.loads((stage.folder / "model" / "rectune.json").read_text())["seconds"]}
    return Evidence(
        recipe=line.recipe, split=line.split, index=line.index, task=line.task, rankings=rankings, answers=answers,
        shuffled=shuffled_ranking, shuffled_rows=sample, training=training, audits=audits, measured=measured,
        environment=environment(line), cached=partial(_cached, line), seed=line.seed,
    )  # fmt: skip


def _cached(line: Line, name: str, keys: Any, build: Callable[[Path], None]) -> Path:
    """A stage for an evaluator: built once for this split."""
    return line.folder.stage(name, keys, [line.split_stage], build).folder


def environment(line: Line) -> dict[str, Any]:
    """Versions, device, threads and commit of this run."""
    import torch

    from rectune.model import pick_device

    names = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "numpy", "polars", "scikit-learn")
    device = pick_device(line.model_settings)
    return {
        "rectune": rectune.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _commit() -> str | None:
    """The commit of the clone that rectune runs from, or None when it was installed."""
    here = Path(__file__).parent
    if not (here.parent / ".git").exists():
        return None
    out = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return out.stdout.strip() or None


def _keep_recipe(line: Line) -> None:
    if is_main():
        write_atomic(line.folder.path / RESOLVED, line.recipe.dump())
        about = {"recipe": line.recipe.name, "rectune": rectune.__version__, "recipe_folder": str(line.recipe.folder or "")}
        write_atomic(line.folder.path / "run.json", json.dumps(about))
    wait()


def _plain(value: Any) -> Any:
    """NumPy values in a report as plain numbers."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)


def training_mixture(line: Line) -> Mixture:
    """The training examples of the first stage, as its method will see them (for `preview`)."""
    _, config = line.stage_config(0)
    return Mixture(line.specs, "train", line.encoder, seed=line.seed, max_length=config.max_length, loss_on_all=config.completion_only_loss is False)
