"""What methods of preference tuning share: what is preferred to what, the model as it was before, the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from trl import DPOTrainer

from rectune.decoding.ranking import Ranking, join_rankings
from rectune.decoding.shelf import Shelf
from rectune.methods.contract import Trainable
from rectune.methods.target_head import put_target_head, scores_everywhere
from rectune.methods.training import DEFAULTS, WholeCheckpoints, check_room, lazy, run
from rectune.runtime.seeded import seeded
from rectune.tasks.examples import Mixture
from rectune.tasks.rows import TaskRows, Variables
from rectune.tasks.views import ItemViews

Negatives = Literal["random", "popular", "ranked"]
LISTED = 512  # training rows that are listed at a time; each part is kept


@dataclass
class Rejecting:
    """Keys that say what is rejected beside the target."""

    negatives: Negatives = field(
        default="random",
        metadata={
            "help": "Where rejected items come from: `random`, any item; `popular`, by how often an item is in the training "
            "events; `ranked`, those that the model itself lists first as the stage begins."
        },
    )
    negatives_power: float = field(
        default=1.0, metadata={"help": "`popular`: the power of an item's count with which it is drawn."}
    )


class Preferences:
    """The examples of a mixture, each with `each` completions that are rejected: other items of the catalogue, or the other answers.

    An item is never rejected that is the target of the row, stands in its history or among the training events of its user.
    What is rejected in a row of an epoch depends on the seed, the epoch and the row only.
    """

    def __init__(self, task: Trainable, mixture: Mixture, config: Rejecting, each: int, lists: Path | None) -> None:
        self.mixture, self._task, self._each, self._seed = mixture, task, each, mixture.seed
        self._drawn_by, self._lists = config.negatives, lists
        events = task.split.log.item_codes[task.split.train_events]
        self._counts = (
            np.bincount(events, minlength=task.split.log.n_items).astype(np.float64) ** config.negatives_power
        )
        self._view = ItemViews(task.split, task.index)
        self._listed: dict[int, Ranking] = {}
        for spec, rows in mixture.tasks:
            if rows.kind == "text":
                raise ValueError(
                    f"task `{spec.name}` writes texts, of which none is known to be worse. Give the stage `tasks` that name an item or "
                    "choose an answer."
                )

    def features(self, position: int, epoch: int) -> dict[str, Any]:
        """`prompt_ids`, `chosen_ids`, and `rejected_ids`, a list of `each`."""
        spec, rows, i = self.mixture.locate(position, epoch)
        example = self.mixture.example(position, epoch)
        rejected = []
        for other in self.rejected(rows, i, epoch, f"task `{spec.name}`, row {int(rows.row[i])}"):
            # encoded as the chosen one is; its own prompt is that of the chosen one, however long it is
            encoded = self.mixture.encoder.completion_ids(
                spec.template.completion(example.wording, {**rows.variables(i), **other}), end=spec.template.end
            )
            rejected.append(encoded)
        return {"prompt_ids": example.prompt, "chosen_ids": example.completion, "rejected_ids": rejected}

    def rejected(self, rows: TaskRows, i: int, epoch: int, what: str) -> list[Variables]:
        """What the template's `target` would be in the completions that are rejected. Raises ValueError where there are too few."""
        rng = seeded(self._seed, "rejected", epoch, int(rows.row[i]))
        if rows.kind == "answer":
            others = [answer for a, answer in enumerate(rows.answers) if a != int(rows.target[i])]
            self._enough(len(others), what, "answers")
            return [others[int(a)] for a in rng.permutation(len(others))[: self._each]]
        return [{"target": self._view(int(item))} for item in self._items(rows, i, rng, what)]

    def _items(self, rows: TaskRows, i: int, rng: np.random.Generator, what: str) -> NDArray[np.int64]:
        taken = self.taken(rows, i)
        if self._drawn_by == "ranked":
            listed = self._ranked(rows)
            free = listed.items[i][listed.items[i] >= 0].astype(np.int64)
            free = free[~np.isin(free, taken)]
            self._enough(len(free), what, "items of its list (`rank.beams`)")
            return rng.permutation(free)[: self._each]
        weights = self._counts if self._drawn_by == "popular" else np.ones(len(self._counts))
        weights = weights.copy()
        weights[taken] = 0
        self._enough(int((weights > 0).sum()), what, "items")
        # without replacement, in one pass: the largest of log(weight) + Gumbel noise
        with np.errstate(divide="ignore"):
            keys = np.log(weights) + rng.gumbel(size=len(weights))
        return np.argpartition(-keys, self._each - 1)[: self._each]

    def _enough(self, there: int, what: str, of: str) -> None:
        if there < self._each:
            raise ValueError(f"{what}: {self._each} are to be rejected, and {there} {of} are left.")

    def taken(self, rows: TaskRows, i: int) -> NDArray[np.int64]:
        """Items that are not rejected in row i: its target, its history, and what its user did in the training events."""
        target = int(rows.target[i])
        parts: list[Any] = [[target]]
        if rows.history is not None:
            parts.append(rows.history(i))
        user = self._user_of.get((int(rows.row[i]), target))
        if user is not None:
            parts.append(self._events_of(user))
        return np.unique(np.concatenate(parts).astype(np.int64))

    @cached_property
    def _user_of(self) -> dict[tuple[int, int], int]:
        """(row number, target) -> user of the split's rows; rows of other kinds have numbers of other things."""
        split = self._task.split
        found: dict[tuple[int, int], int] = {}
        for part in (split.train, split.validation):
            found.update(
                zip(zip(part.row.tolist(), split.targets(part).tolist(), strict=True), part.user.tolist(), strict=True)
            )
        return found

    def _events_of(self, user: int) -> NDArray[np.int32]:
        users, items = self._sequences
        a, b = np.searchsorted(users, [user, user + 1])
        return items[a:b]

    @cached_property
    def _sequences(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        users, items = self._task.split.train_sequences()
        order = np.argsort(users, kind="stable")
        return users[order], items[order]

    def _ranked(self, rows: TaskRows) -> Ranking:
        """The model's own lists of a task's rows, made in parts that are kept, so that a killed training goes on with them."""
        if id(rows) not in self._listed:
            assert self._lists is not None
            number = next(n for n, (_, some) in enumerate(self.mixture.tasks) if some is rows)
            self._lists.mkdir(exist_ok=True)
            model, parts = self._task.model, []
            was_training = model.training
            for at in range(0, len(rows), LISTED):
                file = self._lists / f"{number}-{at}.parquet"
                if not file.exists():
                    which = np.arange(at, min(at + LISTED, len(rows)))
                    hidden = [self.taken(rows, int(i)).tolist() for i in which]
                    found = self._task.search(model.eval(), rows.take(which), Shelf(hidden=hidden))
                    found.save(file.with_suffix(".partial"))
                    file.with_suffix(".partial").replace(file)
                parts.append(Ranking.load(file))
            model.train(was_training)
            self._listed[id(rows)] = join_rankings(parts, rows.row.astype(np.int64))
        return self._listed[id(rows)]

    def list_now(self) -> None:
        """Make the lists while the model is as the stage found it."""
        if self._drawn_by == "ranked":
            for _, rows in self.mixture.tasks:
                if rows.kind == "item":
                    self._ranked(rows)


class AsItWas:
    """A model with the weights that it had when this was made: those that are trained are kept beside it, and put in for the time of
    a call. An adapter's copy is small; beside a model that is tuned in full stands a whole one."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._before = [p.detach().clone() for p in self._trained]

    def __call__(self, **inputs: Any) -> Any:
        with torch.no_grad(), self._put_in():
            return self._model(**inputs)

    @contextmanager
    def _put_in(self) -> Iterator[None]:
        now = [p.data for p in self._trained]
        for parameter, before in zip(self._trained, self._before, strict=True):
            parameter.data = before
        try:
            yield
        finally:
            for parameter, data in zip(self._trained, now, strict=True):
                parameter.data = data


class _Nobody(torch.nn.Module):
    """Stands where DPOTrainer wants a reference model of its own, until `AsItWas` takes its place."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self) -> None:
        """Is never called."""


class PreferenceTrainer(WholeCheckpoints, DPOTrainer):  # type: ignore[misc]
    """DPOTrainer with whole checkpoints, examples that are rendered when they are asked for, and the stage's first weights as its
    reference, new tokens included: DPOTrainer's own copy of an adapter leaves their rows out."""

    def __init__(self, model: Any, **given: Any) -> None:
        super().__init__(model=model, ref_model=_Nobody(model.config), **given)
        self.ref_model = AsItWas(model)
        if scores_everywhere(model) and not self.use_weighting:
            put_target_head(model)

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset


def tune(
    trainer: type[PreferenceTrainer], task: Trainable, config: Any, folder: Path, each: int, collator: Any
) -> None:
    """Tune `task.model` by preferences; leaves in `folder` what `sft` does, and raises what it does."""
    config.output_dir = str(folder / "checkpoints")
    parts = {
        part: Mixture(task.specs, part, task.encoder, seed=task.seed, max_length=config.max_length, loss_on_all=False)  # type: ignore[arg-type]
        for part in ("train", "validation")
    }
    check_room(task, config.max_length, len(parts["train"]))
    sides = {
        part: Preferences(task, mixture, config, each, folder / f"lists-{part}") for part, mixture in parts.items()
    }
    for part in ("train", "validation") if config.eval_strategy != "no" else ("train",):
        sides[part].list_now()
    evaluated = lazy(parts["validation"], sides["validation"].features, most=config.ranked_rows)
    made = trainer(
        task.model, args=config, processing_class=task.encoder.tokenizer, data_collator=collator,
        train_dataset=lazy(parts["train"], sides["train"].features),
        eval_dataset=evaluated if len(parts["validation"]) and config.eval_strategy != "no" else None,
    )  # fmt: skip
    run(made, task, parts["train"], folder)


def config_defaults(given: dict[str, Any], *, cpu: bool, seed: int) -> dict[str, Any]:
    """The keys of a stage with what rectune fills in: the recipe's seed, what the device can do, lazy rendering."""
    device = {"use_cpu": True, "bf16": False} if cpu else {}
    ours = {"remove_unused_columns": False, "output_dir": "checkpoints"}
    return {**DEFAULTS, "activation_checkpointing": False, **device, "seed": seed, **given, **ours}


def searches(section: dict[str, Any]) -> bool:
    """Whether the training lists items by the search."""
    return section.get("negatives") == "ranked"
