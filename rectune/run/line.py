"""The line of one recipe: every box, built or loaded from its stage when it is first asked for."""

from __future__ import annotations

import inspect
import json
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from rectune.decoding.language_model import LanguageModelRanker, catalogue_trie
from rectune.decoding.trie import FILE, Trie
from rectune.log.split import evenly
from rectune.recipe.calls import bind, resolve_call
from rectune.recipe.fingerprints import name_of, source_of
from rectune.run.folder import Stage
from rectune.run.prior_box import RunPrior
from rectune.run.task_materials import TaskMaterials
from rectune.runtime.files import write_atomic
from rectune.runtime.processes import is_main, wait
from rectune.tasks.views import ItemViews

CARD = "rectune.json"  # beside the tuned weights: what they were made with


class Line(TaskMaterials):
    """All boxes of one recipe's line; each is built, or loaded from its stage, when it is first asked for."""

    def check(self) -> None:
        """Check every section before anything is built (of a finished run, what ranking and judging still read)."""
        _ = self.rank_settings, self.prior, self.rank_template, self.task_calls, self.model_settings
        if not self.folder.pinned:
            from rectune.methods.choosing import early_stopping

            _ = self._data_call, self._split_call, self.vector_calls, self._index_call, self._user_tokens
            windows: list[str] = []
            for i in range(len(self.recipe.settings["stages"])):
                _, config = self.stage_config(i)
                early_stopping(config)
                whole = [call.key for call in self.stage_calls(i) if call.arguments.get("examples") == "windows"]
                windows += whole
                if whole and vars(config).get("completion_only_loss") is not False:
                    raise ValueError(
                        f"{self.recipe.where(f'{whole[0]}.examples')}: `windows` trains all targets only where the loss covers the whole "
                        f"sequence; set `stages.{i}.completion_only_loss: false` with sft, or use `examples: targets`."
                    )
            if windows and self.recipe.settings["split"].get("shots") is not None:
                raise ValueError(
                    f"{self.recipe.where('split.shots')}: `examples: windows` trains whole sequences, not single rows; "
                    "use `examples: targets`, or no `shots`."
                )
        bind(self.recipe, "eval", resolve_call(self.recipe, "eval"), given=("evidence",))

    def check_lists(self) -> None:
        """Raise ValueError when the report asks for longer lists than the search or the catalogue can give."""
        rows = self.task_rows(self.split)
        kind, told = rows.kind, "rating" if rows.values else rows.kind
        judges = vars(inspect.getmodule(resolve_call(self.recipe, "eval"))).get("JUDGES", told)
        if judges != told:
            raise ValueError(
                f"{self.recipe.where('eval.call')}: `{self.recipe.settings['eval']['call']}` judges tasks of the kind `{judges}`, but "
                f"`{self.ranked_section['call']}` is of the kind `{told}`."
            )
        if self.prior is not None and kind != "item":
            raise ValueError(
                f"{self.recipe.where('rank.prior')}: the ranked task lists no items, so a prior over items has no place."
            )
        if not self.folder.pinned:
            self._check_metrics({"item": ["recall@10", "ndcg@10"], "answer": ["auc"], "rating": ["rmse"]}.get(told, []))
        if kind == "answer" and not self.folder.pinned:
            self._check_answers()
        if kind == "item":
            asked = {**signature_defaults(resolve_call(self.recipe, "eval")), **self.recipe.settings["eval"]}.get("k")
            self.check_k(max(asked or [self.rank_settings.k]))

    def _check_metrics(self, ranked: list[str]) -> None:
        """Raise ValueError where a stage chooses its checkpoint by a metric that no evaluation gives."""
        known = [f"eval_{name}" for name in ("loss", *ranked)]
        for i in range(len(self.recipe.settings["stages"])):
            _, config = self.stage_config(i)
            name = vars(config).get("metric_for_best_model") if vars(config).get("load_best_model_at_end") else None
            if name is not None and f"eval_{name.removeprefix('eval_')}" not in known:
                raise ValueError(
                    f"{self.recipe.where(f'stages.{i}.metric_for_best_model')}: no evaluation of this run gives `{name}`; it can be "
                    f"{', '.join(known)}."
                )

    def _check_answers(self) -> None:
        train, validation = self.part_rows("train"), self.part_rows("validation")
        if len(np.unique(train.target)) < 2:
            raise ValueError(
                f"all {len(train)} training rows have the same answer, so there is nothing to tell apart. Raise `split.shots`, "
                "use another `seed`, or another threshold."
            )
        if len(validation) and len(np.unique(validation.target)) < 2:
            warnings.warn(
                f"all {len(validation)} validation rows have the same answer: eval_auc is NaN and chooses nothing. Use a longer "
                "validation part, or `metric_for_best_model: eval_loss`.",
                stacklevel=2,
            )

    @cached_property
    def prior(self) -> RunPrior | None:
        """The section `rank.prior`, where there is one."""
        return RunPrior(self) if self.rank_settings.prior else None

    # ------------------------------------------------------------------------------------------------------- stages

    def stage_config(self, i: int) -> tuple[Any, Any]:
        """The method module of stage i and its checked Config."""
        from rectune.model.settings import pick_device
        from rectune.recipe.library import library_config

        key = f"stages.{i}"
        module = resolve_call(self.recipe, key)
        for needed in ("Config", "train", "config_defaults"):
            if not hasattr(module, needed):
                raise ValueError(
                    f"{self.recipe.where(f'{key}.call')}: a method is a module with `Config`, `train` and `config_defaults`."
                )
        section = {k: v for k, v in self.recipe.settings["stages"][i].items() if k not in ("call", "tasks")}
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
        if kept := self.folder.kept(f"train{i}"):
            return kept
        from rectune.methods.out_of_memory import for_fingerprint
        from rectune.model.settings import settings_for_fingerprint

        section = self.recipe.settings["stages"][i]
        keys: dict[str, Any] = {
            "stage": for_fingerprint(section, self.stage_config(i)[1]),
            "method": name_of(resolve_call(self.recipe, f"stages.{i}")),
            "tasks": self.stage_task_keys(i),
            "model": settings_for_fingerprint(self.model_settings),
        }
        keys.update(seed=self.seed, source=source_of(resolve_call(self.recipe, f"stages.{i}")))
        if section.get("eval_strategy", "no") != "no":
            read = ("wording", "beams", "scores", "max_length", "normaliser", "spellings")
            keys["rank"] = {
                "tasks": self.task_keys,
                "template": self.rank_template.hash,
                **{name: getattr(self.rank_settings, name) for name in read},
            }
        return self.folder.stage(
            f"train{i}", keys, [before, self.base_stage, self.index_stage, self.split_stage],
            partial(self._train, i, before), resumes=True,
        )  # fmt: skip

    def _train(self, i: int, before: Stage, work: Path) -> None:
        from rectune.methods.measured import resident
        from rectune.methods.out_of_memory import advised
        from rectune.methods.trainable import Trainable
        from rectune.model.adapters import load_tuned, with_adapter
        from rectune.model.load import load_base
        from rectune.model.new_tokens import new_token_ids

        if (work / "model" / CARD).exists():  # killed after its training had ended: the card is written last
            if is_main():
                shutil.rmtree(work / "checkpoints", ignore_errors=True)
            return
        module, config = self.stage_config(i)
        settings, base = self.model_settings, self.base_stage.folder
        tokens = new_token_ids(self.encoder.tokenizer, self.index)
        adapter = bool(settings.library.use_peft)
        started, held = time.perf_counter(), resident()
        with advised(i, config):
            if before is not self.base_stage:
                tuned = before.folder / "model"
                model = load_tuned(settings, base, tuned, self.index, seed=self.seed, trainable=True)
            else:
                model = load_base(settings, base, self.index, seed=self.seed)
                if adapter:
                    model = with_adapter(model, settings, tokens, seed=self.seed)
            ranked = self.rank_validation
            specs = self.stage_specs(i)
            rows = [spec.rows("train") for spec in specs]
            names_items = i not in self.own_tasks or any(some.kind == "item" for some in rows)
            named = tokens if names_items else []  # a stage's own tasks, such as instructions, need not
            module.train(Trainable(model, self.encoder, specs, named, self.seed, adapter, ranked), config, work)
        seconds = time.perf_counter() - started
        if is_main():
            card = {
                "templates": {template.name: template.hash for template in self.templates},
                "base": base_name(self),
                "seconds": seconds,
                "before": held,
                "tasks": [
                    {"task": s.name, "rows": len(some), **some.notes} for s, some in zip(specs, rows, strict=True)
                ],
            }
            write_atomic(work / "model" / CARD, json.dumps(card))
            shutil.rmtree(work / "checkpoints", ignore_errors=True)  # not before what they led to is safe
        wait()

    def built(self) -> list[Stage]:
        """The stages from the log to the tuned model, in order."""
        vectors = [self.vectors_stage] if self._reads_vectors() else []
        return [self.data_stage, self.split_stage, *vectors, self.index_stage, self.base_stage, *self.train_stages]

    def _reads_vectors(self) -> bool:
        """Whether the index or a task of this run reads item vectors."""
        if self.folder.pinned:
            return "vectors" in self.folder.pinned
        histories = [call.history for call in self.every_call]
        return any(self.wants_vectors(call[0]) for call in [self._index_call, *histories] if call)

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
        from rectune.model.adapters import fold_adapter, load_tuned
        from rectune.model.load import load_base

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

    def rank_validation(self, model: Any, most: int) -> dict[str, float]:
        """Ranking metrics of a model in training on a sample of at most `most` validation rows."""
        from rectune.methods.validation import validation_metrics

        rows = self.part_rows("validation")
        ranker = self.as_ranker(model)
        ranker.settings = replace(
            self.rank_settings, exact=False
        )  # the beam chooses checkpoints, whatever lists are for
        ranker.progress = False
        return validation_metrics(ranker, rows.take(evenly(len(rows), most)))

    def worded(self, ranker: LanguageModelRanker, wording: int) -> LanguageModelRanker:
        """The same model, asked in another wording of the template."""
        trie = None
        if ranker.trie is not None:
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
    template, tuned_with = line.rank_template, card.get("templates", {})
    if template.name not in tuned_with:
        raise ValueError(f"{tuned} was not tuned with `{template.name}` (`rank.template`). Train again.")
    if tuned_with[template.name] != template.hash:
        raise ValueError(
            f"{tuned} was tuned with another text of `{template.name}` than it is now. Restore the template or train again."
        )
    if card["base"] != base_name(line):
        raise ValueError(
            f"{tuned} was tuned on the base `{card['base']}`, but the recipe now names `{base_name(line)}`."
        )
