"""The next boxes of a recipe's line: tasks and templates, the base model, and the encoder that turns one into ids for the other."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

from rectune.decoding.language_model import RankSettings
from rectune.log.split import Part, Split
from rectune.prompts.encoder import Encoder, Frame
from rectune.prompts.template import Template
from rectune.recipe.calls import section_at
from rectune.recipe.checking import check_keywords
from rectune.run.folder import Stage
from rectune.run.materials import Materials
from rectune.tasks.examples import TaskSpec, sample_texts
from rectune.tasks.rows import TaskRows
from rectune.tasks.task_calls import TaskCall, read_task, read_template


class TaskMaterials(Materials):
    """What is said to the base model, and the base model."""

    @cached_property
    def task_calls(self) -> list[TaskCall]:
        """The tasks of the recipe."""
        return [read_task(self, f"tasks.{i}") for i in range(len(self.recipe.settings["tasks"]))]

    @cached_property
    def ranked_call(self) -> TaskCall:
        """The task that is ranked: the first with the template of `rank`. Raises ValueError where none has it."""
        template = read_template(self, "rank")
        for call in self.task_calls:
            if call.template.hash == template.hash:
                return call
        trained = ", ".join(dict.fromkeys(f"`{call.template.name}`" for call in self.task_calls))
        raise ValueError(
            f"{self.recipe.where('rank.template')}: no task trains `{template.name}`, and a model is asked as it was tuned. "
            f"Name a template of the tasks: {trained}."
        )

    @property
    def ranked_section(self) -> dict[str, Any]:
        """What the recipe says of the ranked task."""
        return section_at(self.recipe, self.ranked_call.key)

    def stage_calls(self, i: int) -> list[TaskCall]:
        """The tasks that stage i trains: its own (`stages.I.tasks`), or those of the recipe."""
        own = self.recipe.settings["stages"][i].get("tasks")
        if own is None:
            return self.task_calls
        if not isinstance(own, list) or not own or not all(isinstance(entry, dict) for entry in own):
            raise TypeError(
                f"{self.recipe.where(f'stages.{i}.tasks')}: it must be a list of at least one mapping, each with `call`."
            )
        return [read_task(self, f"stages.{i}.tasks.{j}") for j in range(len(own))]

    @property
    def every_call(self) -> list[TaskCall]:
        """The tasks of the recipe and those that stages have of their own."""
        return [*self.task_calls, *(call for i in self.own_tasks for call in self.stage_calls(i))]

    @cached_property
    def specs(self) -> list[TaskSpec]:
        """The tasks of the recipe."""
        return [call.spec(self) for call in self.task_calls]

    @property
    def own_tasks(self) -> list[int]:
        """The stages that have tasks of their own."""
        return [i for i, stage in enumerate(self.recipe.settings["stages"]) if stage.get("tasks") is not None]

    def stage_specs(self, i: int) -> list[TaskSpec]:
        """The tasks that stage i trains."""
        return [call.spec(self) for call in self.stage_calls(i)] if i in self.own_tasks else self.specs

    def stages_with_other_tasks(self) -> list[int]:
        """One stage for each set of tasks: those with tasks of their own, and the first without."""
        shared = [i for i in range(len(self.recipe.settings["stages"])) if i not in self.own_tasks]
        return sorted([*self.own_tasks, *shared[:1]])

    @cached_property
    def templates(self) -> list[Template]:
        """The templates of all tasks, those of stages too."""
        stages = self.recipe.settings["stages"]
        own = [f"stages.{i}.tasks.{j}" for i in self.own_tasks for j in range(len(stages[i]["tasks"]))]
        return [*(call.template for call in self.task_calls), *(read_template(self, key) for key in own)]

    def part_rows(self, part: Part) -> TaskRows:
        """The rows of a part of the split for the ranked task."""
        return self.ranked_call.rows(self, self.split, part)

    def task_rows(self, split: Split) -> TaskRows:
        """The test rows of `split` for the ranked task."""
        return self.ranked_call.rows(self, split, "test")

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
    def rank_template(self) -> Template:
        """The template that ranking uses. Raises ValueError when its wording does not exist or no task trains it."""
        template = self.ranked_call.template
        if self.rank_settings.wording >= template.wordings:
            raise ValueError(
                f"{self.recipe.where('rank.wording')}: {template.name} has wordings 0 to {template.wordings - 1}."
            )
        return template

    @cached_property
    def model_settings(self) -> Any:
        """The section `model`."""
        from rectune.model.settings import model_settings

        return model_settings(self.recipe)

    @cached_property
    def base_stage(self) -> Stage:
        """The stage that holds the tokenizer with the new tokens, and the base itself if it is made from scratch."""
        from rectune.model.load import build_base
        from rectune.model.settings import base_identity

        if kept := self.folder.kept("base"):
            return kept
        settings = self.model_settings
        keys: dict[str, Any] = {"base": base_identity(settings), "seed": self.seed, "form": settings.prompt_form}
        if self.model_settings.from_scratch is not None:
            keys["tasks"] = [call.text_fingerprint(self) for call in self.every_call]
        texts = sample_texts([call.spec(self) for call in self.every_call], most=20_000)
        build = partial(build_base, self.model_settings, self.index, texts, seed=self.seed)
        return self.folder.stage("base", keys, [self.index_stage], build)

    @cached_property
    def task_keys(self) -> list[Any]:
        """What fingerprints say of the tasks."""
        return [call.fingerprint(self) for call in self.task_calls]

    def stage_task_keys(self, i: int) -> list[Any]:
        return [call.fingerprint(self) for call in self.stage_calls(i)]

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the base's tokenizer, with the frame that was rendered when the base was made."""
        from rectune.model.load import load_tokenizer

        base = self.base_stage.folder
        form, frame = self.model_settings.prompt_form, Frame.load(base)
        return Encoder(load_tokenizer(base), self.index.vocabulary, form=form, frame=frame)
