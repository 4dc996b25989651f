"""What every trained method shares: whole checkpoints, lazy examples, the way it ends."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.trainer import FSDP_MODEL_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler

from rectune.decoding.language_model import positions_of
from rectune.log.split import Ints, Part, evenly
from rectune.methods.choosing import RankedMetrics, early_stopping
from rectune.methods.contract import Trainable
from rectune.methods.cpu_attention import attention_in_float32
from rectune.methods.measured import FILE as MEASURED
from rectune.methods.measured import Meter
from rectune.methods.probe import save_probe
from rectune.methods.progress import TrainingBar
from rectune.methods.token_audit import TokenAudit, check_saved
from rectune.methods.token_tree import trees_of
from rectune.model.pieces import drop_second_names, tied_to_see, whole
from rectune.runtime.files import write_atomic
from rectune.runtime.processes import gather, is_main, wait, world_size
from rectune.runtime.seeded import hashed, seeded
from rectune.tasks.examples import MANY, Mixture

COMPLETE = "complete"
MINUTE = 60.0  # seconds
GROUPS = 7_001  # what the order of groups is drawn under
# `disable_tqdm`: left open, transformers takes it from how much its logger says, and the command line keeps that quiet.
# TRL would compute activations again unasked.
DEFAULTS = {
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 10,
    "disable_tqdm": False,
    "activation_checkpointing": False,
}
OLDER = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
Features = Callable[
    [Sequence[int], int], list[dict[str, Any]]
]  # positions, epoch -> columns of each such as input_ids and labels


def check_room(task: Trainable, max_length: int | None, examples: int) -> None:
    """Raise ValueError when there is nothing to train on, or the model has too few positions for `max_length`."""
    limit = positions_of(task.model)
    if limit is not None and (max_length is None or max_length > limit):
        raise ValueError(f"`max_length` is {max_length}, but the model has positions for {limit} tokens. Lower it.")
    if examples == 0:
        raise ValueError(
            "there is no training example: no user has two training events. Use a longer log or another split."
        )


def filled(given: dict[str, Any], *, cpu: bool, seed: int, **ours: Any) -> dict[str, Any]:
    """The keys of a stage with what every trainer is told: the recipe's seed, what the device can do, lazy rendering. `ours`: what
    the recipe cannot change."""
    device = {"use_cpu": True, "bf16": False} if cpu else {}
    fixed = {"remove_unused_columns": False, "output_dir": "checkpoints", **ours}
    if given.get("batch_tokens") is not None:
        # an element of the data set is a batch, made of examples of like length
        fixed |= {"per_device_train_batch_size": 1, "train_sampling_strategy": "random"}
    older = {
        new: given[old] for old, new in OLDER.items() if old in given
    }  # which the library reads where the newer name is not set
    return {**DEFAULTS, **device, "seed": seed, **older, **given, **fixed}


def mixtures(task: Trainable, max_length: int | None, *, loss_on_all: bool) -> dict[Part, Mixture]:
    """The examples of both parts. Raises ValueError as `check_room` does."""
    parts: tuple[Part, ...] = ("train", "validation")
    made = {
        part: Mixture(task.specs, part, task.encoder, seed=task.seed, max_length=max_length, loss_on_all=loss_on_all)
        for part in parts
    }
    check_room(task, max_length, len(made["train"]))
    return made


def without_dropout(model: Any) -> None:
    """Switch all dropout off for good: that of layers, and that which is a number of another layer, such as attention's in most architectures."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def run(trainer: Any, task: Trainable, examples: Mixture, folder: Path) -> None:
    """Train with a trainer from the last complete checkpoint on, and leave what a method leaves in `folder`."""
    trainer.examples = examples
    audit = TokenAudit(task.new_tokens, folder / "first_step.json")
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    ranked = RankedMetrics(trainer, lambda model: task.rank_validation(model, trainer.args.ranked_rows))
    trainer.meter = Meter(folder / MEASURED, trainer.args.device)
    bar = TrainingBar(trainer.meter.seen)
    for added in (EpochClock(examples), audit, bar, trainer.meter, ranked, NowAndThen(), *early_stopping(trainer.args)):
        trainer.add_callback(added)
    done = last_complete(folder / "checkpoints")
    if done is not None:
        trainer.args.eval_on_start = False  # that was before its first step
    try:
        with attention_in_float32():
            trainer.train(resume_from_checkpoint=done)
    finally:
        bar.close()
    measured = asdict(trainer.meter.up_to_date())
    if is_main():
        write_atomic(folder / MEASURED, json.dumps(measured))
    _finish(trainer, task, audit, folder)


def _finish(trainer: Any, task: Trainable, audit: TokenAudit, folder: Path) -> None:
    # Without the Trainer's mixed precision: that is how the model is used from here on, and how the probe must be taken.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    tuned = folder / "model"
    trainer.save_model(str(tuned))
    wait()
    model = whole(model, here=is_main())
    if is_main():
        save_probe(model, task.encoder, tuned)
        report = {**audit.report, **check_saved(tuned, model, task.new_tokens, adapter=task.adapter)}
        (folder / "audit.json").write_text(json.dumps(report))
        (folder / "log_history.json").write_text(json.dumps(trainer.state.log_history))
        (folder / "first_step.json").unlink(missing_ok=True)
        for leftover in ("README.md", "training_args.bin"):  # TRL's card speaks of another project's defaults
            (tuned / leftover).unlink(missing_ok=True)


def last_complete(checkpoints: Path) -> str | None:
    """The newest checkpoint that was written to its end, or None; half-written ones are removed.

    Raises ValueError where another number of processes wrote it: each has a random state of its own, and none would see the examples that it was to see.
    """
    found = {
        int(c.name.partition("-")[2]): c for c in checkpoints.glob("checkpoint-*") if c.name.partition("-")[2].isdigit()
    }
    for step in sorted(found, reverse=True):
        if (found[step] / COMPLETE).exists():
            _check_processes(found[step] / COMPLETE)
            if is_main():
                _name_best_here(found[step])
            wait()
            return str(found[step])
        if is_main():
            shutil.rmtree(found[step])
    return None


def _check_processes(complete: Path) -> None:
    wrote, now = complete.read_text().strip() or str(world_size()), world_size()  # empty: written before this was kept
    if int(wrote) != now:
        raise ValueError(
            f"this training was begun with {wrote} process{'es' * (wrote != '1')} and stopped at step {complete.parent.name.partition('-')[2]}; {now} cannot go on "
            f"from there. Start it with {wrote}, or train anew: delete {complete.parent.parent.parent}."
        )


def _name_best_here(checkpoint: Path) -> None:
    """Let a checkpoint name the best one beside itself: the Trainer writes whole paths, and a run folder may have moved."""
    file = checkpoint / "trainer_state.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    best = state.get("best_model_checkpoint")
    if best and Path(best).parent != checkpoint.parent:
        write_atomic(file, json.dumps({**state, "best_model_checkpoint": str(checkpoint.parent / Path(best).name)}))


class WholeCheckpoints:
    """For a transformers Trainer: whole checkpoints, no embedding matrix in an adapter."""

    meter: Meter
    examples: Mixture
    whole_batches = False  # an element of the data set is a batch
    args: Any  # what a Trainer has
    state: Any
    model: Any
    accelerator: Any

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.meter.saw(inputs)
        return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        with tied_to_see(self.model):
            return super()._prepare_for_training(*args, **kwargs)  # type: ignore[misc]

    def _get_train_sampler(self, *args: Any) -> Any:
        strategy = self.args.train_sampling_strategy
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        seed = order_seed(self.args)
        if self.whole_batches:
            return super()._get_train_sampler(*args)  # type: ignore[misc]
        if self.examples.grouped and strategy in ("random", "group_by_length"):
            return ByGroup(self.examples, batch, seed=seed, by_length=strategy == "group_by_length")
        if strategy == "group_by_length":
            return ByLength(self.examples, batch, seed=seed)
        return super()._get_train_sampler(*args)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        keep, self.args.save_total_limit = self.args.save_total_limit, None  # older ones go once this one is whole
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except RuntimeError as error:  # torch's writer says in many ways that a disk is full
            if "iostream" in str(error) or "inline_container" in str(error):
                raise OSError(f"a checkpoint could not be written ({error}). Is the disk full?") from error
            raise
        self.args.save_total_limit = keep
        wait()
        if not self.args.should_save:
            return
        from transformers.trainer_utils import rotate_checkpoints

        written = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        drop_second_names(self.model, written / f"{FSDP_MODEL_NAME}.bin")
        (written / COMPLETE).write_text(str(world_size()))
        rotate_checkpoints(
            output_dir=self.args.output_dir,
            save_total_limit=keep if keep is not None else 2,
            best_model_checkpoint=self.state.best_model_checkpoint,
        )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The run's own card is written with the report."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not hasattr(self.accelerator.unwrap_model(self.model), "peft_config"):
            super()._save(output_dir, state_dict)  # type: ignore[misc]
            return
        if not self.args.should_save:
            return  # of a model in pieces the weights are gathered on one process
        folder = output_dir or self.args.output_dir
        self.accelerator.unwrap_model(self.model).save_pretrained(
            folder, state_dict=state_dict, save_embedding_layers=False
        )


class NowAndThen(TrainerCallback):  # type: ignore[misc]
    """Checkpoints every `save_minutes` where the recipe asks for none: a training that was stopped does not begin anew. They are written with a line of
    losses, whose mean would otherwise be another one after going on."""

    def __init__(self) -> None:
        self._since = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        minutes = vars(args).get("save_minutes")
        between = args.logging_strategy == "steps" and not control.should_log
        if args.save_strategy != "no" or not minutes or between or state.global_step >= state.max_steps:
            return
        if any(gather(time.monotonic() - self._since >= MINUTE * minutes)):
            control.should_save = True
            self._since = time.monotonic()


def order_seed(args: Any) -> int:
    """What the order of a stage's examples is drawn under: its `data_seed`, or where that is not given its `seed`."""
    return int(args.seed if args.data_seed is None else args.data_seed)


class ByLength(LengthGroupedSampler):  # type: ignore[misc]
    """Batches of like length by the lengths of the epoch that begins: drawn rows and wordings are others in each epoch, and
    batches by the lengths of the first would be mostly padding from the second on. The order depends on seed and epoch alone: the library's
    own depends on what was drawn before, and a training that goes on in its second epoch would go on in another order."""

    def __init__(self, examples: Mixture, batch_size: int, *, seed: int) -> None:
        super().__init__(batch_size, lengths=[0] * len(examples), generator=torch.Generator())
        self._examples, self._seed, self._of = examples, seed, -1

    def __iter__(self) -> Iterator[int]:
        epoch = self._examples.epoch
        if self._of < 0 or (self._examples.varies and self._of != epoch):
            self._of = epoch
            self.lengths = self._examples.lengths(epoch).tolist()
        self.generator.manual_seed(hashed(self._seed, epoch, "by length") >> 1)
        return iter(super().__iter__())


class ByGroup(Sampler[int]):
    """Examples that begin alike one after the other, the groups in an order of each epoch's own, which depends on seed and epoch alone."""

    def __init__(self, examples: Mixture, batch_size: int, *, seed: int, by_length: bool) -> None:
        """`by_length`: groups whose longest trees are alike beside each other, the longest first, among those of fifty batches."""
        self._examples, self._batch_size, self._seed, self._by_length = examples, batch_size, seed, by_length
        self._tokens, self._of = np.zeros(0, dtype=np.int64), -1

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[int]:
        examples, epoch = self._examples, self._examples.epoch
        _, group = np.unique(examples.groups(epoch), return_inverse=True)
        groups = int(group.max()) + 1
        place = seeded(self._seed, epoch, GROUPS).permutation(groups)[group]
        order = np.argsort(place, kind="stable")
        if self._by_length:
            if self._of < 0 or (examples.varies and self._of != epoch):
                tree, sizes = trees_in(examples, group, epoch)
                widest = np.zeros(groups, dtype=np.int64)
                np.maximum.at(widest, group, sizes[tree])
                self._tokens, self._of = widest, epoch
            tokens = self._tokens[group]
            stretch = np.full(groups, len(order))  # a group is not cut between two
            np.minimum.at(stretch, group[order], np.arange(len(order)) // (50 * self._batch_size))
            order = order[np.lexsort((place[order], -tokens[order], stretch[group[order]]))]
        return iter(order.tolist())


def trees_in(examples: Mixture, group: NDArray[np.int64], epoch: int) -> tuple[Ints, Ints]:
    """The number of the tree that each position of an epoch is in, (positions,), and the tokens of each tree. `group`: of each position, numbered from 0."""
    members: list[list[tuple[int, list[int], list[int]]]] = [[] for _ in range(int(group.max()) + 1)]
    for begin in range(0, len(group), MANY):
        some = range(begin, min(begin + MANY, len(group)))
        for position, own in zip(some, examples.features(some, epoch), strict=True):
            members[int(group[position])].append((position, own["input_ids"], own["labels"]))
    tree_of, sizes = np.empty(len(group), dtype=np.int64), list[int]()
    for some_members in members:
        for numbers, tree in trees_of([(ids, labels) for _, ids, labels in some_members]):
            tree_of[[some_members[number][0] for number in numbers]] = len(sizes)
            sizes.append(len(tree))
    return tree_of, np.array(sizes, dtype=np.int64)


class EpochClock(TrainerCallback):  # type: ignore[misc]
    """Tells the lazy data set which epoch it is, so that wordings and drawn rows differ between epochs."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._mixture.epoch = int(state.epoch or 0)


class _Rendered:
    """Renders the examples at some positions. `datasets` tells a transform by pickling it, and this one holds the whole run: what is
    pickled is nothing."""

    def __init__(self, mixture: Mixture, features: Features) -> None:
        self._mixture, self._features = mixture, features

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        rows = self._features(batch["position"], self._mixture.epoch)
        return {key: [row[key] for row in rows] for key in rows[0]}

    def __getstate__(self) -> dict[str, Any]:
        return {}


def lazy(mixture: Mixture, features: Features, *, most: int | None = None, length: int | None = None) -> Any:
    """A data set whose elements are made when they are asked for: `length` of them, or where that is not given one for each example, `most` at most."""
    from datasets import Dataset

    length = len(mixture) if length is None else length
    positions = evenly(length, length if most is None else most).tolist()
    data = Dataset.from_dict({"position": positions})
    data.set_transform(_Rendered(mixture, features))
    return data
