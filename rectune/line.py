"""The line of one recipe: every box, built or loaded from its stage when it is first asked for."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rectune.checking import check_keywords
from rectune.decoding.trie import FILE, Trie
from rectune.encoder import Encoder
from rectune.examples import TaskSpec, sample_texts
from rectune.history import Chosen
from rectune.materials import Materials
from rectune.processes import is_main
from rectune.ranker import LanguageModelRanker, RankSettings, catalogue_trie
from rectune.recipe import bind, resolve_call, section_at
from rectune.run_folder import Stage, source_of, stamps, write_atomic
from rectune.run_history import history_call
from rectune.run_prior import RunPrior
from rectune.split import Part, Split
from rectune.tasks import ItemViews, TaskRows
from rectune.template import Template, load_template


class Line(Materials):
    """All boxes of one recipe's line; each is built, or loaded from its stage, when it is first asked for."""

    def check(self) -> None:
        """Check every section before anything is built (of a finished run, what ranking and judging still read)."""
        _ = self.rank_settings, self.prior, self.rank_template, self.task_calls, self.history_calls, self.model_settings
        if not self.folder.pinned:
            _ = self._data_call, self._split_call, self.vector_calls, self._index_call, self._user_tokens
            windows = [f"tasks.{i}" for i, call in enumerate(self.task_calls) if call[1].get("examples") == "windows"]
            for i in range(len(self.recipe.settings["stages"])):
                _, config = self.stage_config(i)
                if windows and vars(config).get("completion_only_loss") is not False:
                    raise ValueError(
                        f"{self.recipe.where(f'{windows[0]}.examples')}: `windows` trains all targets only where the loss covers the whole "
                        f"sequence; set `stages.{i}.completion_only_loss: false` with rectune.methods.sft, or use `examples: targets`."
                    )
        bind(self.recipe, "eval", resolve_call(self.recipe, "eval"), given=("evidence",))

    def check_lists(self) -> None:
        """Raise ValueError when the report asks for longer lists than the search or the catalogue can give."""
        kind = self.task_rows(self.split).kind
        if self.prior is not None and kind != "item":
            raise ValueError(
                f"{self.recipe.where('rank.prior')}: the ranked task lists no items, so a prior over items has no place."
            )
        if kind == "item":
            asked = {**signature_defaults(resolve_call(self.recipe, "eval")), **self.recipe.settings["eval"]}.get("k")
            self.check_k(max(asked or [self.rank_settings.k]))

    # ------------------------------------------------------------------------------------------- tasks and templates

    @cached_property
    def task_calls(self) -> list[tuple[Callable[..., TaskRows], dict[str, Any], Template, float]]:
        """For each task of the recipe its function, bound arguments, template and share."""
        calls = []
        for i, entry in enumerate(self.recipe.settings["tasks"]):
            function = resolve_call(self.recipe, f"tasks.{i}")
            given, own = ("split", "index", "part", "history"), ("template", "share", "history")
            arguments = bind(self.recipe, f"tasks.{i}", function, given=given, own=own)
            arguments = self._nested(f"tasks.{i}", arguments)
            share = entry.get("share", 1.0)
            if isinstance(share, bool) or not isinstance(share, int | float) or share <= 0:
                raise ValueError(
                    f"{self.recipe.where(f'tasks.{i}.share')}: got {share!r}, but it must be a number above 0."
                )
            calls.append((function, arguments, self._template(f"tasks.{i}"), float(share)))
        return calls

    @cached_property
    def history_calls(self) -> list[tuple[Callable[..., Chosen], dict[str, Any]] | None]:
        """For each task what chooses its histories, with bound arguments, or None where the split's are used."""
        calls = []
        for i, (task, _, _, _) in enumerate(self.task_calls):
            call = history_call(self.recipe, f"tasks.{i}", task)
            if call is not None:
                self._check_vectors(f"tasks.{i}.history", call[0], "chooses events by item vectors")
                call = call[0], self._seeded(*call)
            calls.append(call)
        return calls

    def _template(self, key: str) -> Template:
        name = section_at(self.recipe, key).get("template")
        if not isinstance(name, str):
            raise TypeError(
                f"{self.recipe.where(f'{key}.template')}: got {name!r}, but it must be the name of a `.jinja` file."
            )
        try:
            return load_template(self.recipe.find(name, kind="templates"))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.recipe.where(f'{key}.template')}: {error}") from None

    @cached_property
    def specs(self) -> list[TaskSpec]:
        """The tasks of the recipe."""
        return [
            TaskSpec(function.__name__, partial(self.part_rows, task=i), template, share)
            for i, (function, _, template, share) in enumerate(self.task_calls)
        ]

    def _rows_of(self, i: int, split: Split, part: Part) -> TaskRows:
        function, arguments, _, _ = self.task_calls[i]
        chosen: dict[str, Any] = {}
        if (call := self.history_calls[i]) is not None:
            vectors = {"vectors": self.vectors} if self._wants_vectors(call[0]) else {}
            chosen = {"history": partial(call[0], **vectors, **call[1])}
        return function(split, self.index, part, **arguments, **chosen)

    def part_rows(self, part: Part, *, task: int = 0) -> TaskRows:
        """The rows of a part of the split for a task, by default the ranked one."""
        return self._rows_of(task, self.split, part)

    def task_rows(self, split: Split) -> TaskRows:
        """The test rows of `split` for the ranked task, which is the first task of the recipe."""
        return self._rows_of(0, split, "test")

    @cached_property
    def task(self) -> TaskRows:
        """The test rows of the ranked task."""
        return self.task_rows(self.split)

    @cached_property
    def rank_settings(self) -> RankSettings:
        """The section `rank`."""
        keys = check_keywords(
            RankSettings, self.recipe.settings["rank"], lambda k: self.recipe.where(f"rank.{k}"), given=()
        )
        return RankSettings(**keys)

    @cached_property
    def prior(self) -> RunPrior | None:
        """The section `rank.prior`, where there is one."""
        return RunPrior(self) if self.rank_settings.prior else None

    @cached_property
    def rank_template(self) -> Template:
        """The template that ranking uses. Raises ValueError when its wording does not exist or it was not trained."""
        template = self._template("rank")
        if self.rank_settings.wording >= template.wordings:
            raise ValueError(
                f"{self.recipe.where('rank.wording')}: {template.name} has wordings 0 to {template.wordings - 1}."
            )
        if template.hash != self.task_calls[0][2].hash:
            raise ValueError(
                f"{self.recipe.where('rank.template')}: the first task trains `{self.task_calls[0][2].name}`, but ranking would "
                f"prompt with `{template.name}`. One prompt for all stages: name the same template in both."
            )
        return template

    # -------------------------------------------------------------------------------------------------------- model

    @cached_property
    def model_settings(self) -> Any:
        """The section `model`."""
        from rectune.model import model_settings

        return model_settings(self.recipe)

    @cached_property
    def base_stage(self) -> Stage:
        """The stage that holds the tokenizer with the new tokens, and the base itself if it is made from scratch."""
        from rectune.model import base_identity, build_base

        if kept := self.folder.kept("base"):
            return kept
        keys: dict[str, Any] = {"base": base_identity(self.model_settings), "seed": self.seed}
        if self.model_settings.from_scratch is not None:
            keys["tasks"] = self.task_keys
        texts = sample_texts(self.specs, most=20_000)
        build = partial(build_base, self.model_settings, self.index, texts, seed=self.seed)
        return self.folder.stage("base", keys, [self.index_stage], build)

    @cached_property
    def task_keys(self) -> list[Any]:
        """What fingerprints say of the tasks."""
        return [
            [
                function.__name__,
                source_of(function),
                arguments,
                template.hash,
                share,
                *self._inside(f"tasks.{i}", arguments),
                *self._history_keys(i),
            ]
            for i, (function, arguments, template, share) in enumerate(self.task_calls)
        ]

    def _history_keys(self, i: int) -> list[Any]:
        """What fingerprints say of how task i chooses its histories; nothing where the split's are used."""
        if (call := self.history_calls[i]) is None:
            return []
        vectors = self.vectors_stage.fingerprint if self._wants_vectors(call[0]) else None
        return [call[0].__name__, source_of(call[0]), call[1], stamps(call[1], without=self.folder.path), vectors]

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the base's tokenizer."""
        from rectune.model import load_tokenizer

        return Encoder(
            load_tokenizer(self.base_stage.folder), self.index.vocabulary, form=self.model_settings.prompt_form
        )

    # ------------------------------------------------------------------------------------------------------- stages

    def stage_config(self, i: int) -> tuple[Any, Any]:
        """The method module of stage i and its checked Config."""
        from rectune.library_config import library_config
        from rectune.model import pick_device

        key = f"stages.{i}"
        module = resolve_call(self.recipe, key)
        for needed in ("Config", "train", "config_defaults"):
            if not hasattr(module, needed):
                raise ValueError(
                    f"{self.recipe.where(f'{key}.call')}: a method is a module with `Config`, `train` and `config_defaults`."
                )
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

        if kept := self.folder.kept(f"train{i}"):
            return kept
        section = self.recipe.settings["stages"][i]
        keys: dict[str, Any] = {
            "stage": section,
            "tasks": self.task_keys,
            "model": settings_for_fingerprint(self.model_settings),
        }
        keys.update(seed=self.seed, source=source_of(resolve_call(self.recipe, f"stages.{i}")))
        if section.get("eval_strategy", "no") != "no":
            keys["rank"] = [getattr(self.rank_settings, name) for name in ("wording", "beams", "scores", "max_length")]
        return self.folder.stage(
            f"train{i}", keys, [before, self.base_stage, self.index_stage, self.split_stage],
            partial(self._train, i, before), resumes=True,
        )  # fmt: skip

    def _train(self, i: int, before: Stage, work: Path) -> None:
        from rectune.methods.trainable import Trainable
        from rectune.model import load_base, load_tuned, new_token_ids, with_adapter
        from rectune.validation import validation_metrics_of

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
        module.train(
            Trainable(
                model, self.encoder, self.specs, tokens, self.seed, adapter, partial(validation_metrics_of, self)
            ),
            config,
            work,
        )
        if is_main():
            card = {
                "template": self.rank_template.hash,
                "base": base_name(self),
                "seconds": time.perf_counter() - started,
            }
            write_atomic(work / "model" / "rectune.json", json.dumps(card))

    def built(self) -> list[Stage]:
        """The stages from the log to the tuned model, in order."""
        vectors = [self.vectors_stage] if self._reads_vectors() else []
        return [self.data_stage, self.split_stage, *vectors, self.index_stage, self.base_stage, *self.train_stages]

    def _reads_vectors(self) -> bool:
        """Whether the index or a task of this run reads item vectors."""
        if self.folder.pinned:
            return "vectors" in self.folder.pinned
        return any(self._wants_vectors(call[0]) for call in [self._index_call, *self.history_calls] if call)

    @property
    def tuned(self) -> Stage:
        """The last training stage."""
        return self.train_stages[-1]

    # ------------------------------------------------------------------------------------------------------ ranking

    @cached_property
    def trie(self) -> Trie | None:
        """The trie of the catalogue, or None for a task with fixed answers."""
        if self.task.kind == "answer":
            return None
        if self.task.kind != "item":
            raise ValueError(f"the task of `{self.rank_template.name}` does not name items.")
        keys = {
            "template": self.rank_template.hash, "wording": self.rank_settings.wording, "form": self.encoder.form,
            "source": source_of(catalogue_trie), "added": self.added and self.added.mark,
        }  # fmt: skip
        stage = self.folder.stage("trie", keys, [self.base_stage, self.index_stage], self._build_trie)
        return Trie.load(stage.folder / FILE)

    def _build_trie(self, work: Path) -> None:
        view, wording = ItemViews(self.split, self.index), self.rank_settings.wording
        catalogue_trie(self.encoder, self.rank_template, wording, view, self.index).save(work / FILE)

    def ranker(self, who: str) -> LanguageModelRanker:
        """The 'untuned' or the 'tuned' model as a ranker. Raises ValueError when what was tuned does not fit the run."""
        from rectune.methods.token_audit import check_reloaded
        from rectune.model import fold_adapter, load_base, load_tuned

        settings, base = self.model_settings, self.base_stage.folder
        if who == "untuned":
            return self.as_ranker(load_base(settings, base, self.index, seed=self.seed))
        tuned = self.tuned.folder / "model"
        check_origin(self, tuned)
        model = load_tuned(settings, base, tuned, self.index, seed=self.seed)
        check_reloaded(model, tuned)
        return self.as_ranker(fold_adapter(model, settings))

    def as_ranker(self, model: Any) -> LanguageModelRanker:
        """A model as a ranker of this run's rows."""
        return LanguageModelRanker(model, self.encoder, self.rank_template, self.rank_settings, self.trie)

    def worded(self, ranker: LanguageModelRanker, wording: int) -> LanguageModelRanker:
        """The same model, asked in another wording of the template."""
        view = ItemViews(self.split, self.index)
        trie = catalogue_trie(self.encoder, self.rank_template, wording, view, self.index)
        settings = replace(self.rank_settings, wording=wording)
        return LanguageModelRanker(ranker.model, self.encoder, self.rank_template, settings, trie, progress=False)

    def check_k(self, k: int) -> None:
        """Raise ValueError for a list length that the search or the catalogue cannot give."""
        if not 1 <= k <= self.rank_settings.beams:
            raise ValueError(f"k = {k}, but it must be from 1 to `rank.beams` = {self.rank_settings.beams}.")
        if self.task.kind == "item" and k > self.log.n_items:
            raise ValueError(f"k = {k}, but the catalogue holds only {self.log.n_items} items.")


def signature_defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The default of each parameter that has one."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def base_name(line: Line) -> str:
    """The name of the base: of the checkpoint, or the fingerprint of a base made from scratch."""
    settings = line.model_settings
    return str(settings.library.model_name_or_path) if settings.from_scratch is None else line.base_stage.fingerprint


def check_origin(line: Line, tuned: Path) -> None:
    """Raise ValueError when a tuned model was made with another prompt or on another base than this run's."""
    card = json.loads((tuned / "rectune.json").read_text())
    if card["template"] != line.rank_template.hash:
        raise ValueError(
            f"{tuned} was tuned with another text of `{line.rank_template.name}` than it is now. Restore the template or train again."
        )
    if card["base"] != base_name(line):
        raise ValueError(
            f"{tuned} was tuned on the base `{card['base']}`, but the recipe now names `{base_name(line)}`."
        )
