"""Training of an encoder-decoder: the prompt is encoded, the completion is written (TIGER)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from rectune.methods.choosing import Choosing
from rectune.methods.contract import Trainable
from rectune.methods.language_model import load
from rectune.methods.sharding import refuse_pieces
from rectune.methods.token_batches import TokenBatches, TokenBudget, by_batches
from rectune.methods.training import WholeCheckpoints, filled, lazy, mixtures, run
from rectune.tasks.examples import Mixture

__all__ = ["Config", "check_asked", "check_base", "config_defaults", "load", "train"]
WHOLE = "an encoder-decoder is not shown to be trained so"


@dataclass
class Config(Choosing, TokenBudget, TrainingArguments):  # type: ignore[misc]
    """transformers' TrainingArguments and keys of our own."""

    max_length: int | None = field(
        default=512, metadata={"help": "Most tokens of prompt and completion together; the oldest history goes first."}
    )


def check_asked(config: Config, tasks: Sequence[Any], ranked: Any, beams: int) -> None:
    """Raise ValueError for weights in pieces."""
    refuse_pieces(config, WHOLE)


def train(task: Trainable, config: Config, folder: Path) -> None:
    """Train `task.model`, an encoder-decoder; leaves in `folder` and raises what `sft` does."""
    config.output_dir = str(folder / "checkpoints")
    check_base(task.model.config)
    parts = mixtures(task, config.max_length, loss_on_all=False)
    train_rows, validation_rows = parts["train"], parts["validation"]
    features_of = partial(features, train_rows)
    batches = None if config.batch_tokens is None else TokenBatches(train_rows, config.batch_tokens, trees=False)
    trainer = _Trainer(
        model=task.model,
        args=config,
        processing_class=task.encoder.tokenizer,
        data_collator=DataCollatorForSeq2Seq(task.encoder.tokenizer, model=task.model),
        train_dataset=lazy(train_rows, features_of) if batches is None else batches.data(features_of),
        eval_dataset=lazy(validation_rows, partial(features, validation_rows), most=config.ranked_rows)
        if len(validation_rows)
        else None,
    )
    if batches is not None:
        by_batches(trainer)
    run(trainer, task, train_rows, folder)


def check_base(config: Any) -> None:
    """Raise ValueError for a base that this method cannot train; `config`: its transformers config."""
    if not config.is_encoder_decoder:
        raise ValueError(
            f"`seq2seq` trains encoder-decoders such as t5, and the model is a `{config.model_type}`. Use `sft`."
        )


def features(mixture: Mixture, positions: Sequence[int], epoch: int) -> list[dict[str, Any]]:
    """`input_ids`: the prompt; `labels`: the completion."""
    every = mixture.examples(positions, epoch)
    return [{"input_ids": example.prompt, "labels": example.completion} for example in every]


def config_defaults(given: dict[str, Any], *, cpu: bool, seed: int) -> dict[str, Any]:
    """The keys of a stage with what rectune fills in: the recipe's seed, what the device can do, lazy rendering."""
    return filled(given, cpu=cpu, seed=seed)


class _Trainer(WholeCheckpoints, Trainer):  # type: ignore[misc]
    """transformers' Trainer with whole checkpoints."""
