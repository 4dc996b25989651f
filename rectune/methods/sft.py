"""Supervised fine-tuning with TRL's SFTTrainer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from rectune.examples import Mixture
from rectune.methods.progress import TrainingBar
from rectune.methods.token_audit import TokenAudit, check_saved, save_probe
from rectune.methods.trainable import Trainable
from rectune.processes import is_main, wait
from rectune.ranker import positions_of
from rectune.split import evenly

COMPLETE = "complete"
DEFAULTS = {"report_to": "none", "save_strategy": "no", "logging_steps": 10, "activation_checkpointing": False}


@dataclass
class Config(SFTConfig):  # type: ignore[misc]
    """TRL's SFTConfig and one key of our own."""

    ranked_rows: int = field(
        default=512,
        metadata={
            "help": "Validation rows that are ranked at each evaluation (eval_recall@10, eval_ndcg@10, eval_auc)."
        },
    )


def train(task: Trainable, config: Config, folder: Path) -> None:
    """Tune `task.model` and leave in `folder`: the tuned weights or adapter, the log of losses, the token audit.

    Continues from the last complete checkpoint in `folder`. Raises ValueError when there is nothing to train on or
    the new tokens did not learn or were not saved.
    """
    checkpoints = folder / "checkpoints"
    config.output_dir = str(checkpoints)
    on_all = config.completion_only_loss is False
    parts = {
        part: Mixture(task.specs, part, task.encoder, seed=task.seed, max_length=config.max_length, loss_on_all=on_all)  # type: ignore[arg-type]
        for part in ("train", "validation")
    }
    refuse_sharding(config, task)
    limit = positions_of(task.model)
    if limit is not None and (config.max_length is None or config.max_length > limit):
        raise ValueError(
            f"`max_length` is {config.max_length}, but the model has positions for {limit} tokens. Lower it."
        )
    if len(parts["train"]) == 0:
        raise ValueError(
            "there is no training example: no user has two training events. Use a longer log or another split."
        )
    audit = TokenAudit(task.new_tokens, folder / "first_step.json")
    trainer = _Trainer(
        model=task.model,
        args=config,
        processing_class=task.encoder.tokenizer,
        train_dataset=_lazy(parts["train"]),
        eval_dataset=_lazy(parts["validation"], most=config.ranked_rows) if len(parts["validation"]) else None,
        callbacks=[_EpochClock(parts["train"]), audit],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TrainingBar())
    trainer.rank_validation = lambda model: task.rank_validation(model, config.ranked_rows)
    trainer.train(resume_from_checkpoint=last_complete(checkpoints))
    _finish(trainer, task, audit, folder)


def refuse_sharding(config: Config, task: Trainable) -> None:
    """Raise ValueError for FSDP or DeepSpeed with an adapter or new tokens: trained rows are not shown to work there."""
    sharded = bool(config.fsdp or config.deepspeed) or any(
        os.environ.get(name) == "true" for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    )
    if sharded and (task.adapter or task.new_tokens):
        raise ValueError(
            "FSDP and DeepSpeed are only for full fine-tuning without new tokens (`use_peft: false`, an index of titles): "
            "adapters and new token rows are not shown to be trained and saved there. Use recipes/accelerate/several-gpus.yaml."
        )


def _finish(trainer: Any, task: Trainable, audit: TokenAudit, folder: Path) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    tuned = folder / "model"
    trainer.save_model(str(tuned))
    wait()
    if is_main():
        save_probe(model, task.encoder, tuned)
        report = {**audit.report, **check_saved(tuned, model, task.new_tokens, adapter=task.adapter)}
        (folder / "audit.json").write_text(json.dumps(report))
        (folder / "log_history.json").write_text(json.dumps(trainer.state.log_history))
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / "first_step.json").unlink(missing_ok=True)
        for leftover in ("README.md", "training_args.bin"):  # TRL's card speaks of another project's defaults
            (tuned / leftover).unlink(missing_ok=True)


def last_complete(checkpoints: Path) -> str | None:
    """The newest checkpoint that was written to its end, or None; half-written ones are removed."""
    found = {
        int(c.name.partition("-")[2]): c for c in checkpoints.glob("checkpoint-*") if c.name.partition("-")[2].isdigit()
    }
    for step in sorted(found, reverse=True):
        if (found[step] / COMPLETE).exists():
            return str(found[step])
        if is_main():
            shutil.rmtree(found[step])
    return None


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with ranking metrics, whole checkpoints, and no embedding matrix in an adapter."""

    rank_validation: Callable[[Any], dict[str, float]]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        ranked = {f"eval_{name}": value for name, value in self.rank_validation(model.eval()).items()}
        model.train(was_training)
        self.log(dict(ranked))
        return {**metrics, **ranked}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        keep, self.args.save_total_limit = self.args.save_total_limit, None  # older ones go once this one is whole
        super()._save_checkpoint(model, trial)
        self.args.save_total_limit = keep
        wait()
        if not self.args.should_save:
            return
        from transformers.trainer_utils import rotate_checkpoints

        (Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / COMPLETE).touch()
        rotate_checkpoints(
            output_dir=self.args.output_dir,
            save_total_limit=keep if keep is not None else 2,
            best_model_checkpoint=self.state.best_model_checkpoint,
        )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The run's own card is written with the report."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not hasattr(self.accelerator.unwrap_model(self.model), "peft_config"):
            super()._save(output_dir, state_dict)
            return
        folder = output_dir or self.args.output_dir
        self.accelerator.unwrap_model(self.model).save_pretrained(
            folder, state_dict=state_dict, save_embedding_layers=False
        )


class _EpochClock(TrainerCallback):  # type: ignore[misc]
    """Tells the lazy data set which epoch it is, so that wordings and drawn rows differ between epochs."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._mixture.epoch = int(state.epoch or 0)


def _lazy(mixture: Mixture, *, most: int | None = None) -> Any:
    """A data set whose examples are rendered when they are asked for."""
    from datasets import Dataset

    positions = evenly(len(mixture), len(mixture) if most is None else most).tolist()

    def render(batch: dict[str, list[int]]) -> dict[str, list[list[int]]]:
        rows = [mixture.features(p, mixture.epoch) for p in batch["position"]]
        return {key: [row[key] for row in rows] for key in ("input_ids", "labels")}

    data = Dataset.from_dict({"position": positions})
    data.set_transform(render)
    return data


def config_defaults(given: dict[str, Any], *, cpu: bool, seed: int) -> dict[str, Any]:
    """The keys of a stage with what rectune fills in: the recipe's seed, what the device can do, lazy rendering."""
    device = {"use_cpu": True, "bf16": False} if cpu else {}
    ours = {
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "output_dir": "checkpoints",
    }
    return {**DEFAULTS, **device, "seed": seed, **given, **ours}
