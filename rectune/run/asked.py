"""What a recipe asks for: every section bound and checked, nothing built, no data read."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from rectune.decoding.language_model import RankSettings
from rectune.indexing.added import Added
from rectune.methods.contract import Method
from rectune.prompts.template import Template
from rectune.recipe.calls import (
    Call,
    bind,
    check_vectors,
    defaults_of,
    named,
    read_call,
    resolve_call,
    unless,
)
from rectune.recipe.checking import check_keywords
from rectune.recipe.homes import HOMES
from rectune.recipe.load import Recipe
from rectune.run.earlier import Earlier, read_earlier
from rectune.run.judged import Judge, judge_of
from rectune.run.sasrec_box import AskedSasRec, read_sasrec
from rectune.runtime.near import shown
from rectune.tasks.task_calls import TaskCall, ranked_task, read_tasks

ANY = (ValueError, TypeError, OSError, ImportError)  # why a callable or its files may be missing
LIST = 10  # items of the lists by which checkpoints are chosen, whatever `rank.beams` are
LEAST = {"ease_items": 1, "neighbours": 1}  # of items; none would leave a baseline nothing
WEIGHTS = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0)


@dataclass(frozen=True)
class Training:
    """One of the recipe's `stages`. `tasks`: those that it trains; `own`: whether they are of its own (`stages.I.tasks`)."""

    number: int
    method: Method
    section: dict[str, Any]
    tasks: tuple[TaskCall, ...]
    own: bool
    config: Callable[[], Any]  # the method's Config, anew for every call: a trainer writes into it

    @property
    def name(self) -> str:
        """The name of its box."""
        return f"train{self.number}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Boxes of the line that the method reads beside the usual ones: `vectors`, `prior`."""
        needs = getattr(self.method, "needs", None)
        return () if needs is None else tuple(needs(self.section))


@dataclass(frozen=True)
class AskedPrior:
    """The section `rank.prior`: a module with `fit` and `load`, `fit`'s arguments, the weights to choose from on `rows` validation
    rows. `beside`: what `fit` is given where it takes it and what it learns does not depend on, `memory` (`eval.memory`) and `device`.
    `reads_sasrec`: whether the run's SASRec is a part of it."""

    module: Any
    arguments: dict[str, Any]
    weights: tuple[float, ...]
    rows: int
    beside: dict[str, Any] = field(default_factory=dict)
    reads_sasrec: bool = False


@dataclass(frozen=True)
class Asked:
    """Everything that a recipe asks for. `ranked`: the task that is ranked, `model`: the section of that name as `ModelSettings`,
    `added`: items that were added to a finished run, `earlier`: what the run goes on from."""

    recipe: Recipe
    seed: int
    data: Call
    split: Call
    shots: int | None
    vectors: tuple[Call, ...]
    index: Call
    user_tokens: int
    tasks: tuple[TaskCall, ...]
    ranked: TaskCall
    rank: RankSettings
    model: Any
    trainings: tuple[Training, ...]
    prior: AskedPrior | None
    sasrec: AskedSasRec | None
    judge: Judge
    judge_arguments: dict[str, Any]
    added: Added | None = None
    reads_vectors: bool = False
    earlier: Earlier | None = None

    @property
    def template(self) -> Template:
        """The template that ranking uses."""
        return self.ranked.template

    @property
    def every_task(self) -> list[TaskCall]:
        """The tasks of the recipe and those that trainings have of their own."""
        return [*self.tasks, *(task for training in self.trainings if training.own for task in training.tasks)]

    @property
    def read_tasks(self) -> list[TaskCall]:
        """Of these the ones that show the texts which models read: of trainings only those whose template none before has, so that another
        stage over the same template leaves a base from scratch, and what was trained on it, as it is."""
        read = list(self.tasks)
        for task in self.every_task[len(self.tasks) :]:
            if task.template.hash not in {other.template.hash for other in read}:
                read.append(task)
        return read

    @property
    def judged_by(self) -> dict[str, Any]:
        """The keys of `eval`, defaults filled in."""
        return {**defaults_of(self.judge.function), **self.judge_arguments}

    @property
    def list_width(self) -> int:
        """Items of the lists that a training asks for, by which checkpoints are chosen."""
        return max(LIST, self.rank.beams)

    def where(self, key: str) -> str:
        """How messages name a key."""
        return self.recipe.where(key)


def ask(recipe: Recipe, *, need: Literal["all", "no files", "ranking"] = "all") -> Asked:
    """Bind and check every section. Raises ValueError, TypeError or FileNotFoundError with one line that names the key.

    `need`: 'no files' for a plan, made before data, vectors and index files are there; 'ranking' for a finished run, of which
    nothing is built again: what made its log, split, vectors and index may be gone.
    """
    from rectune.model.settings import model_settings
    from rectune.recipe.library import Range, check_range

    earlier = read_earlier(recipe, finished=need == "ranking")
    if recipe.settings.get("index") is None:
        recipe.settings["index"] = {"call": "titles"}
    seed = int(recipe.settings["seed"])
    keys = check_keywords(RankSettings, recipe.settings["rank"], lambda k: recipe.where(f"rank.{k}"), given=())
    rank = RankSettings(**keys)
    sasrec = read_sasrec(recipe, seed)
    prior = _prior(recipe, rank.prior, seed, sasrec=sasrec is not None) if rank.prior else None
    tasks = tuple(read_tasks(recipe, "tasks", seed=seed))
    ranked = ranked_task(recipe, tasks)
    if rank.wording >= ranked.template.wordings:
        raise ValueError(
            f"{recipe.where('rank.wording')}: {ranked.template.name} has wordings 0 to {ranked.template.wordings - 1}."
        )
    model = model_settings(recipe)
    gone: tuple[type[Exception], ...] = {"all": (), "no files": (FileNotFoundError,), "ranking": ANY}[need]
    data = unless(gone, "data", lambda: read_call(recipe, "data", given=("seed",)))
    if data.wants("seed"):
        data = replace(data, arguments={**data.arguments, "seed": seed})
    split = unless(gone, "split", lambda: read_call(recipe, "split", given=("log",), own=("shots",), seed=seed))
    vectors = tuple(
        unless(gone, key, partial(read_call, recipe, key, given=("split",), seed=seed))
        for key in (f"vectors.{i}" for i in range(len(recipe.settings.get("vectors") or [])))
    )
    index = unless(gone, "index", lambda: _index(recipe, seed))
    user_tokens = _user_tokens(recipe)
    trainings = tuple(_training(recipe, i, tasks, model, seed, gone) for i in range(len(recipe.settings["stages"])))
    judge = judge_of(resolve_call(recipe, "eval"))
    arguments = bind(recipe, "eval", judge.function, given=("evidence",))
    if judge.function.__module__.startswith("rectune.eval."):
        for name, value in arguments.items():
            if isinstance(value, int):  # all of them count something
                check_range(value, Range(LEAST.get(name, 0)), recipe.where(f"eval.{name}"))
    if judge.judges in ("item", "choice") and min(arguments.get("k") or [1]) < 1:
        raise ValueError(f"{recipe.where('eval.k')}: got {arguments['k']}, but a list holds at least 1 item.")
    if isinstance(arguments.get("oracle"), str):  # named here, too: a report comes after the training
        named(arguments["oracle"], HOMES["eval.oracle"], recipe.where("eval.oracle"))
    asked = Asked(
        recipe, seed, data, split, recipe.settings["split"].get("shots"), vectors, index, user_tokens, tasks, ranked, rank, model,
        trainings, prior, sasrec, judge, arguments,
    )  # fmt: skip
    if need != "ranking":
        _check_trainings(asked)
    if need == "all":
        _check_base(asked)
    return replace(
        asked,
        earlier=earlier,
        reads_vectors=index.wants("vectors")
        or any("vectors" in training.needs for training in asked.trainings)
        or any(task.reads_vectors for task in asked.every_task)
        or (sasrec is not None and sasrec.reads_vectors),
    )


def _index(recipe: Recipe, seed: int) -> Call:
    call = read_call(recipe, "index", given=("split", "vectors"), own=("user_tokens",), seed=seed)
    check_vectors(recipe, call, "names items by their vectors")
    return call


def _user_tokens(recipe: Recipe) -> int:
    count = recipe.settings["index"].get("user_tokens", 0)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ValueError(
            f"{recipe.where('index.user_tokens')}: got {shown(count)}; it must be a whole number from 0 on."
        )
    return count


def _training(
    recipe: Recipe, i: int, tasks: tuple[TaskCall, ...], model: Any, seed: int, gone: tuple[type[Exception], ...]
) -> Training:
    from rectune.methods.choosing import early_stopping
    from rectune.methods.keys import check_keys, ranges_of
    from rectune.model.settings import pick_device
    from rectune.recipe.library import library_config

    key = f"stages.{i}"
    method: Method = resolve_call(recipe, key)
    section = {k: v for k, v in recipe.settings["stages"][i].items() if k not in ("call", "tasks")}
    own = recipe.settings["stages"][i].get("tasks") is not None
    trained = tuple(read_tasks(recipe, f"{key}.tasks", seed=seed, gone=gone)) if own else tasks

    check_keys(method.Config, section, lambda name: recipe.where(f"{key}.{name}"))

    def config() -> Any:
        cpu = pick_device(model).type == "cpu"
        filled = method.config_defaults(dict(section), cpu=cpu, seed=seed)
        return library_config(method.Config, filled, recipe, key, ranges=ranges_of(method.Config))

    early_stopping(config())
    return Training(i, method, recipe.settings["stages"][i], trained, own, config)


def _check_trainings(asked: Asked) -> None:
    """Raise ValueError for examples that a stage cannot train, and for weights that are in pieces in one stage and whole in another."""
    from rectune.methods.sharding import sharding_of

    cut = [sharding_of(training.config()) for training in asked.trainings]
    if len(set(cut)) > 1:
        other = next(i for i, by in enumerate(cut) if by != cut[0])
        raise ValueError(
            f"{asked.where(f'stages.{other}')}: a process cuts the weights of all its stages or of none, and this one says `{cut[other] or 'nothing'}` where the "
            f"first says `{cut[0] or 'nothing'}` (`fsdp`, `deepspeed`). Say the same in all."
        )
    windows: list[str] = []
    for training in asked.trainings:
        for name, there in (("vectors", asked.vectors), ("rank.prior", asked.prior)):
            if name.rpartition(".")[2] in training.needs and not there:
                raise ValueError(
                    f"{asked.where(f'stages.{training.number}')}: it reads the run's {name.rpartition('.')[2]}, and the recipe has no section `{name}`."
                )
        fits = getattr(training.method, "check_asked", None)
        if fits is not None:
            try:
                fits(training.config(), training.tasks, asked.ranked, asked.list_width)
            except ValueError as error:
                raise ValueError(f"{asked.where(f'stages.{training.number}')}: {error}") from None
        whole = [task.key for task in training.tasks if task.call.arguments.get("examples") == "windows"]
        windows += whole
        if whole and vars(training.config()).get("completion_only_loss") is not False:
            raise ValueError(
                f"{asked.where(f'{whole[0]}.examples')}: `windows` trains all targets only where the loss covers the whole "
                f"sequence; set `stages.{training.number}.completion_only_loss: false` with sft, or use `examples: targets`."
            )
        trees = [task.key for task in training.tasks if task.call.arguments.get("examples") == "tree"]
        if trees and not getattr(training.method, "READS_TREES", False):
            raise ValueError(
                f"{asked.where(f'{trees[0]}.examples')}: `tree` is read by `sft` alone; use `examples: targets`."
            )
        if trees and vars(training.config()).get("completion_only_loss") is False:
            raise ValueError(
                f"{asked.where(f'{trees[0]}.examples')}: `tree` is one example a target, and with `completion_only_loss: false` each would learn its "
                "history again. Leave that key out, or use `examples: windows`."
            )
    if windows and asked.shots is not None:
        raise ValueError(
            f"{asked.where('split.shots')}: `examples: windows` trains whole sequences, not single rows; "
            "use `examples: targets`, or no `shots`."
        )


def _check_base(asked: Asked) -> None:
    """Raise ValueError for a base that is none, that needs code of its own, or that a method or an adapter does not fit."""
    from rectune.model.before import check_base

    config = check_base(asked.model)
    if config is not None:  # else it is not on this machine, and is looked at when it is
        check_methods(asked, config)


def check_methods(asked: Asked, config: Any) -> None:
    """Raise ValueError for a base that a method cannot train; `config`: its transformers config."""
    for training in asked.trainings:
        if hasattr(training.method, "check_base"):
            try:
                training.method.check_base(config)
            except ValueError as error:
                raise ValueError(f"{asked.where(f'stages.{training.number}.call')}: {error}") from None


def _prior(recipe: Recipe, section: dict[str, Any], seed: int, *, sasrec: bool) -> AskedPrior:
    from rectune.recipe.library import Range, check_range

    where = recipe.where
    module = resolve_call(recipe, "rank.prior")
    given = section.get("weight", list(WEIGHTS))
    weights = [float(w) for w in (given if isinstance(given, list) else [given]) if _number(w)]
    if not weights or len(weights) < (len(given) if isinstance(given, list) else 1):
        raise ValueError(
            f"{where('rank.prior.weight')}: got {shown(given)}; give a number from 0 on, or a list of them."
        )
    rows = section.get("rows", 2000)
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise ValueError(f"{where('rank.prior.rows')}: got {shown(rows)}, but it must be a whole number from 1 on.")
    wanted = section.get("sasrec", True)
    if not isinstance(wanted, bool):
        raise ValueError(
            f"{where('rank.prior.sasrec')}: got {shown(wanted)}; it says whether the run's SASRec is a part of the prior, true or false. "
            "How it is trained stands in the section `sasrec`."
        )
    keys = {key: value for key, value in section.items() if key not in ("call", "weight", "rows", "sasrec")}
    arguments = check_keywords(
        module.fit, keys, lambda k: where(f"rank.prior.{k}"), given=("split", "folder", "memory", "device", "sasrec")
    )
    if module.__name__.startswith("rectune.baselines."):
        for name, least in LEAST.items():
            check_range(arguments.get(name), Range(least), where(f"rank.prior.{name}"))
    if "seed" in inspect.signature(module.fit).parameters:
        arguments.setdefault("seed", seed)
    beside = {
        "memory": recipe.settings["eval"].get("memory", 2.0),
        "device": recipe.settings["model"].get("device") or "auto",
    }
    beside = {key: value for key, value in beside.items() if key in inspect.signature(module.fit).parameters}
    reads = sasrec and wanted and "sasrec" in inspect.signature(module.fit).parameters
    return AskedPrior(module, arguments, tuple(weights), rows, beside, reads)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
