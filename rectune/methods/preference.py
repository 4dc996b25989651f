"""What methods of preference tuning share: what is preferred to what, the model as it was before, the trainer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import SequentialSampler
from trl import DPOTrainer

from rectune.baselines.scoring import train_counts
from rectune.decoding.ranking import Ranking
from rectune.decoding.shelf import Shelf
from rectune.log.split import Ints, Part, Rows, evenly
from rectune.methods.contract import Trainable
from rectune.methods.sharding import refuse_pieces
from rectune.methods.target_head import put_target_head, scores_everywhere
from rectune.methods.training import WholeCheckpoints, filled, lazy, mixtures, run, without_dropout
from rectune.runtime.processes import world_size
from rectune.runtime.seeded import hashed, seeded
from rectune.tasks.examples import Example, Mixture, TaskSpec, fit_prompt
from rectune.tasks.rows import TaskRows
from rectune.tasks.views import ItemViews, Variables

Negatives = Literal["random", "popular", "ranked", "candidates", "shown"]
WHOLE = "preference tuning keeps those of its reference whole"
LOOKED = 20_000  # rows that are looked at for what was shown in them
UNREAD = dict.fromkeys(
    ("pad_to_multiple_of", "padding_free", "pad_token"),
    "batches of preferences are padded to their longest, with the base's own token",
)


@dataclass
class Rejecting:
    """Keys that say what is rejected beside the target."""

    negatives: Negatives = field(
        default="random",
        metadata={
            "help": "Where rejected items come from: `random`, any item; `popular`, by how often an item is in the training "
            "events; `ranked`, those that the model itself lists first as the stage begins; `candidates`, what the row offered beside its target "
            "(`choose_item`); `shown`, what the user was shown until the target and did not take (`data.shown`)."
        },
    )
    negatives_power: float = field(
        default=1.0, metadata={"help": "`popular`: the power of an item's count with which it is drawn."}
    )


class Preferences:
    """The examples of a mixture, each with `each` completions that are rejected: other items of the catalogue, or the other answers.

    An item is never rejected that is the target of the row, or that its user took before it or in the training events.
    What is rejected in a row of an epoch depends on the seed, the epoch and the row only. `lists`: where the model's own lists are
    kept. Raises ValueError for tasks of which nothing is known to be worse, or whose completions do not name the target.
    """

    def __init__(self, task: Trainable, mixture: Mixture, config: Rejecting, each: int, lists: Path | None) -> None:
        self.mixture, self._task, self._each, self._seed = mixture, task, each, mixture.seed
        self._drawn_by, self._lists = config.negatives, lists
        self._view = ItemViews(task.split, task.index)
        counts = train_counts(task.split)
        weights = (
            np.where(counts > 0, counts**config.negatives_power, 0.0)
            if self._drawn_by == "popular"
            else np.ones(len(counts))
        )
        self._below, self._drawable = np.cumsum(weights), np.flatnonzero(weights > 0)
        self._listed: dict[int, tuple[NDArray[np.int64], Ranking]] = {}
        _check_fit(config, each, mixture.tasks)

    def tell_shown(self) -> None:
        """Warn of rows, where what was shown is rejected, whose user was shown too few items that were not taken."""
        if self._drawn_by != "shown":
            return
        for spec, rows in self.mixture.tasks:
            if rows.kind != "item":
                continue
            looked = evenly(len(rows), LOOKED)
            there = [len(np.unique(np.concatenate(_not_taken(rows, i, self.taken(rows, i))))) for i in looked.tolist()]
            if few := int((np.array(there) < self._each).sum()):
                warnings.warn(
                    f"task `{spec.name}`: in {few:,} of {len(looked):,} rows fewer than {self._each} items were shown and not taken until the target; "
                    "items drawn at random stand in for them.",
                    stacklevel=2,
                )

    def features(self, positions: Sequence[int], epoch: int) -> list[dict[str, Any]]:
        """For each position `prompt_ids`, `chosen_ids`, and `rejected_ids`, a list of `each`. The prompt leaves room for the longest of them."""
        examples = self.mixture.examples(positions, epoch)
        return [self._features(p, example, epoch) for p, example in zip(positions, examples, strict=True)]

    def _features(self, position: int, example: Example, epoch: int) -> dict[str, Any]:
        spec, rows, i = self.mixture.locate(position, epoch)
        encoder, most = self.mixture.encoder, self.mixture.max_length
        what = f"task `{spec.name}`, row {int(rows.row[i])}"
        variables, prompt = rows.variables(i), example.prompt
        rejected = [
            encoder.completion_ids(
                spec.template.completion(example.wording, {**variables, **other}), end=spec.template.end
            )
            for other in self.rejected(rows, i, epoch, what)
        ]
        if example.completion in rejected:
            raise ValueError(f"{what}: what is rejected is written as the target is. Use an index whose names differ.")
        longest = max(map(len, rejected))
        if most is not None and len(prompt) + longest > most:
            prompt, _ = fit_prompt(encoder, spec.template, example.wording, variables, room=most - longest, what=what)
        return {"prompt_ids": prompt, "chosen_ids": example.completion, "rejected_ids": rejected}

    def rejected(self, rows: TaskRows, i: int, epoch: int, what: str) -> list[Variables]:
        """Variables of the completions that are rejected in row i. Raises ValueError where there are too few."""
        rng = seeded(self._seed, "rejected", epoch, int(rows.row[i]))
        if rows.kind == "answer":
            others = [answer for a, answer in enumerate(rows.answers) if a != int(rows.target[i])]
            return [others[int(a)] for a in rng.permutation(len(others))[: self._each]]
        return [{"target": self._view(int(item))} for item in self._items(rows, i, rng, what)]

    def _items(self, rows: TaskRows, i: int, rng: np.random.Generator, what: str) -> list[int]:
        if self._drawn_by == "ranked":
            return [int(item) for item in rng.permutation(self._free(rows, i))[: self._each]]
        taken = self.taken(rows, i)
        if rows.candidates is not None and self._drawn_by == "candidates":
            begin, end = rows.candidates.starts[i : i + 2]
            others = np.setdiff1d(rows.candidates.values[begin:end], [int(rows.target[i])])
            _enough(self._each, len(others), what, "candidates")
            free = np.setdiff1d(
                others, taken
            )  # the others, which the row says were not chosen either, where these do not suffice
            return [
                int(item)
                for item in [*rng.permutation(free), *rng.permutation(np.intersect1d(others, taken))][: self._each]
            ]
        _enough(self._each, len(self._drawable) - int(np.isin(taken, self._drawable).sum()), what, "items")
        found = list[int]()
        if self._drawn_by == "shown":
            for some in _not_taken(rows, i, taken):  # those shown with the target, then those before
                found += [int(item) for item in rng.permutation(np.setdiff1d(some, found))][: self._each - len(found)]
        no = {*taken.tolist(), *found}
        # What is drawn again or taken is thrown away: an example costs no pass over the catalogue.
        while len(found) < self._each:
            drawn = rng.random(2 * self._each + 8) * self._below[-1]
            for item in np.searchsorted(self._below, drawn, side="right").tolist():
                if item not in no and len(found) < self._each:
                    found.append(item)
                    no.add(item)
        return found

    def taken(self, rows: TaskRows, i: int) -> NDArray[np.int64]:
        """Items that are not rejected in row i: its target, its history, and what its user did before it and in the training events."""
        target, split = int(rows.target[i]), self._task.split
        parts: list[Any] = [[target]]
        if rows.history is not None:
            parts.append(rows.history(i))
        found = self._row_of(int(rows.row[i]), target)
        if found is not None:
            part, at = found
            parts += [split.earlier(part, at), split.trained(int(part.user[at]))]
        return np.unique(np.concatenate(parts).astype(np.int64))

    def _row_of(self, number: int, target: int) -> tuple[Rows, int] | None:
        """Where a row stands in the split; rows of other tasks have numbers of other things, and other targets."""
        for part, numbers, order, targets in self._split_rows:
            at = int(np.searchsorted(numbers, number, sorter=order))
            if at < len(order) and numbers[order[at]] == number and targets[order[at]] == target:
                return part, int(order[at])
        return None

    @cached_property
    def _split_rows(self) -> list[tuple[Rows, NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """The parts of the split that are no test rows: their numbers, the order of these, and their targets."""
        split = self._task.split
        return [
            (part, part.row, np.argsort(part.row, kind="stable"), split.targets(part))
            for part in (split.train, split.validation)
        ]

    def _free(self, rows: TaskRows, i: int) -> NDArray[np.int64]:
        which, listed = self._listed[id(rows)]
        at = int(np.searchsorted(which, i))
        if at == len(which) or which[at] != i:
            raise RuntimeError(f"row {int(rows.row[i])} is read, and was not listed as the stage began.")
        items: NDArray[np.int64] = listed.items[at].astype(np.int64)
        return np.setdiff1d(items, [-1, *self.taken(rows, i)])

    def list_now(self, positions: Ints | None = None) -> None:
        """Make the lists while the model is as the stage found it: of every row, or of those that stand at `positions` in the first
        epoch. Parts that are finished are kept, and a killed training goes on with them. Raises ValueError where a list is too short."""
        if self._drawn_by != "ranked":
            return
        assert self._lists is not None
        wanted = None if positions is None else [self.mixture.locate(int(p), 0) for p in positions]
        model = self._task.model
        was_training = model.training
        for number, (spec, rows) in enumerate(self.mixture.tasks):
            which = (
                np.arange(len(rows))
                if wanted is None
                else np.unique([i for _, some, i in wanted if some is rows]).astype(np.int64)
            )
            if rows.kind != "item" or not len(which):
                continue
            place = self._lists / f"{number}-{hashed(which.tobytes().hex()):016x}"
            place.mkdir(parents=True, exist_ok=True)
            hidden = [self.taken(rows, int(i)).tolist() for i in which]
            found = self._task.search(model.eval(), rows.take(which), Shelf(hidden=hidden), shards=place)
            self._listed[id(rows)] = (which, found)
            for i in which:
                _enough(
                    self._each,
                    len(self._free(rows, int(i))),
                    f"task `{spec.name}`, row {int(rows.row[i])}",
                    "items of its list (`rank.beams`)",
                )
        model.train(was_training)


def check_rows(config: Rejecting, each: int, tasks: Sequence[tuple[Any, TaskRows]]) -> None:
    """Raise ValueError for tasks, of (spec, training rows), of which nothing is known to be worse, or whose completions do not name the target."""
    _check_fit(config, each, tasks)
    for spec, rows in tasks:
        if config.negatives == "shown" and rows.shown is not None and rows.shown.nothing:
            raise ValueError(
                f"task `{spec.name}`: `data.shown` names no item that was shown to the user of a training row before its target. Look at the times of both, "
                "or use `negatives: random`."
            )


def _check_fit(config: Rejecting, each: int, tasks: Sequence[tuple[Any, TaskRows]]) -> None:
    """Raise ValueError for tasks, of (spec, training rows), of which too little is known to be worse, or whose completions do not name the target."""
    for spec, rows in tasks:
        what = f"task `{spec.name}`"
        if rows.kind == "text":
            raise ValueError(
                f"{what} writes texts, of which none is known to be worse. Give the stage `tasks` that name an item or choose an answer."
            )
        if rows.kind == "answer":
            _enough(each, len(rows.answers) - 1, what, "answers")
        elif config.negatives == "candidates" and rows.candidates is None:
            raise ValueError(f"{what} offers no candidates to reject. Use `choose_item`, or `negatives: random`.")
        elif config.negatives == "shown" and rows.shown is None:
            raise ValueError(
                f"{what} does not tell what its users were shown until then: `next_item` and `choose_item` do, of a log of which `data.shown` says "
                "it (`data: {call: table}`). Or use `negatives: random`."
            )
        elif "target" not in spec.template.arguments("completion"):
            raise ValueError(
                f"{what}: the completion of `{spec.template.name}` does not read `target`, so it cannot name another item."
            )
        if config.negatives in ("candidates", "ranked") and rows.candidates is not None and len(rows):
            least = int(rows.candidates.lengths.argmin())
            _enough(each, int(rows.candidates.lengths[least]) - 1, f"{what}, row {int(rows.row[least])}", "candidates")


def _not_taken(rows: TaskRows, i: int, taken: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """What the user of row i was shown and did not take: since the event before the target, and before that."""
    assert rows.shown is not None
    return [np.setdiff1d(some, taken) for some in rows.shown(i)]


def _enough(each: int, there: int, what: str, of: str) -> None:
    if there < each:
        raise ValueError(f"{what}: {each} are to be rejected, and {there} {of} are left.")


class AsItWas:
    """A model with the weights that it had when this was made: those that are trained are kept beside it, and put in for the time of
    a call. An adapter's copy is small; beside a model that is tuned in full stands a whole one."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._before = [p.detach().clone() for p in self._trained]

    def __call__(self, **inputs: Any) -> Any:
        was_training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad(), self._put_in():
                return self._model(**inputs)
        finally:
            self._model.train(was_training)

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
        if self.args.disable_dropout:
            without_dropout(model)
        if scores_everywhere(model) and not self.use_weighting:
            put_target_head(model)

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        return SequentialSampler(eval_dataset)  # the library's, by length, reads columns of other trainers


def tune(
    trainer: type[PreferenceTrainer], task: Trainable, config: Any, folder: Path, each: int, collator: Any
) -> None:
    """Tune `task.model` by preferences; leaves in `folder` what `sft` does, and raises what it does."""
    config.output_dir = str(folder / "checkpoints")
    parts = mixtures(task, config.max_length, loss_on_all=False)
    few = as_many_as_steps_read(parts["train"], config) if config.negatives == "ranked" else None
    if few is not None:  # no row is listed that no step reads
        parts["train"] = Mixture(
            few, "train", task.encoder, seed=task.seed, max_length=config.max_length, loss_on_all=False
        )
    lists = folder / "checkpoints"  # they go when these go
    sides = {part: Preferences(task, mixture, config, each, lists / f"lists-{part}") for part, mixture in parts.items()}
    sides["train"].tell_shown()
    sides["train"].list_now(None if few is None else np.arange(len(parts["train"])))
    evaluated, validation = None, parts["validation"]
    if len(validation) and config.eval_strategy != "no":
        sides["validation"].list_now(evenly(len(validation), config.ranked_rows))
        evaluated = lazy(validation, sides["validation"].features, most=config.ranked_rows)
    made = trainer(
        task.model, args=config, processing_class=task.encoder.tokenizer, data_collator=collator,
        train_dataset=lazy(parts["train"], sides["train"].features), eval_dataset=evaluated,
    )  # fmt: skip
    run(made, task, parts["train"], folder)


def as_many_as_steps_read(mixture: Mixture, config: Any) -> list[TaskSpec] | None:
    """The tasks of a mixture with shares such that its first epoch has no more examples than the steps of the stage (`max_steps`) read, rows drawn at random; None
    where an epoch ends before the steps do."""
    read = config.max_steps * config.train_batch_size * config.gradient_accumulation_steps * world_size()
    whole = len(mixture)
    if not 0 < read < whole:
        return None
    found = []
    for spec, rows in mixture.tasks:
        size = max(1, round(spec.share * len(rows)))
        found.append(replace(spec, rows=_given(rows), share=-(-read * size // whole) / len(rows)))
    return found


def _given(rows: TaskRows) -> Callable[[Part], TaskRows]:
    return lambda part: rows


def config_defaults(given: dict[str, Any], *, cpu: bool, seed: int) -> dict[str, Any]:
    """The keys of a stage with what rectune fills in: the recipe's seed, what the device can do, lazy rendering."""
    return filled(given, cpu=cpu, seed=seed)


def searches(section: dict[str, Any]) -> bool:
    """Whether the training lists items by the search."""
    return section.get("negatives") == "ranked"


def check_asked(config: Any, each: int, tasks: Sequence[Any], ranked: Any, beams: int) -> None:
    """Raise ValueError for keys and tasks that the model's own lists do not serve; nothing is built yet.

    `ranked`: the task that is ranked, whose prompt the lists answer; `beams`: how long they are.
    """
    refuse_pieces(config, WHOLE)
    if config.negatives != "ranked":
        return
    if each > beams:
        raise ValueError(
            f"`negatives_each` is {each}, and the model's own lists hold {beams} items. Raise `rank.beams`."
        )
    for task in tasks:
        if task.template.hash != ranked.template.hash:
            raise ValueError(
                f"`negatives: ranked` lists items by `{ranked.template.name}` (`rank.template`), and `{task.key}` asks by "
                f"`{task.template.name}`. Use the same template, or `random` or `popular`."
            )
