"""Supervised fine-tuning with TRL's SFTTrainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trl import SFTConfig, SFTTrainer

from rectune.decoding.body import take_apart
from rectune.decoding.conformance import check_body
from rectune.methods.choosing import Choosing
from rectune.methods.contract import Trainable
from rectune.methods.language_model import load
from rectune.methods.sharding import check_cut, refuse_sharding, sharding_of
from rectune.methods.target_head import put_target_head, scores_everywhere
from rectune.methods.token_batches import TokenBatches, TokenBudget, by_batches
from rectune.methods.token_tree import TreeCollator
from rectune.methods.training import WholeCheckpoints, filled, lazy, mixtures, run
from rectune.tasks.examples import Mixture

__all__ = ["Config", "check_base", "config_defaults", "load", "train"]

READS_TREES = True  # examples of a user are read once where they begin alike


@dataclass
class Config(Choosing, TokenBudget, SFTConfig):  # type: ignore[misc]
    """TRL's SFTConfig and keys of our own."""

    target_head: bool | None = field(
        default=None,
        metadata={
            "help": "Logits only where a label is (same loss and gradients). Default: where TRL's own head would score "
            "every position, which is everywhere but on a GPU, and the loss is on the completion only or the weights are in half precision, in "
            "which that head does not multiply."
        },
    )


def train(task: Trainable, config: Config, folder: Path) -> None:
    """Tune `task.model` and leave in `folder`: the tuned weights or adapter, the log of losses, the token audit.

    Continues from the last complete checkpoint in `folder`. Raises ValueError when there is nothing to train on or
    the new tokens did not learn or were not saved.
    """
    check_base(task.model.config)
    config.output_dir = str(folder / "checkpoints")
    on_all = config.completion_only_loss is False
    refuse_sharding(config, task)
    parts = mixtures(task, config.max_length, loss_on_all=on_all)
    train, validation = parts["train"], parts["validation"]
    trees = config.packing or train.grouped
    collator = tree_collator(task, train) if trees else None
    features = train.grouped_features if trees else train.features
    batches = None if config.batch_tokens is None else TokenBatches(train, config.batch_tokens, trees=trees)
    config.packing = False  # the library's own packs before an epoch begins, and for kernels that take no mask
    trainer = _Trainer(
        model=task.model,
        args=config,
        processing_class=task.encoder.tokenizer,
        data_collator=collator,
        train_dataset=lazy(train, features) if batches is None else batches.data(features),
        eval_dataset=lazy(
            validation, validation.grouped_features if trees else validation.features, most=config.ranked_rows
        )
        if len(validation)
        else None,
    )
    check_cut(trainer, config)
    if batches is not None:
        by_batches(trainer)
    in_pieces = task.adapter and sharding_of(config) is not None
    if trees or in_pieces or wants_target_head(config, task.model, on_all=on_all):
        put_target_head(task.model)
    run(trainer, task, parts["train"], folder)


def tree_collator(task: Trainable, examples: Mixture) -> TreeCollator:
    """What makes batches of trees. Raises ValueError for a model that cannot read them: its attention takes no mask of its own, as the search's check shows."""
    model, pad = task.model, int(task.encoder.tokenizer.pad_token_id or 0)
    training = model.training
    try:
        body = take_apart(model)
        check_body(model.eval(), body, tokens=np.array(examples.features([0], 0)[0]["input_ids"]), pad=pad)
    except ValueError as error:
        raise ValueError(
            f"`examples: tree` and `packing` cannot be used with this model: {error}. Leave them out."
        ) from None
    finally:
        model.train(training)
    return TreeCollator(pad, body.reach)


def wants_target_head(config: Config, model: Any, *, on_all: bool) -> bool:
    """Whether our head stands in for TRL's, which off a GPU scores every position, and in float32 whatever the weights are: on a CPU that
    was half of a LoRA step of SmolLM2 in bfloat16 (`benchmarks/training.py`)."""
    if config.target_head is not None:
        return config.target_head
    return scores_everywhere(model) and own_head(None, model.dtype, on_all=on_all)


def own_head(asked: bool | None, dtype: torch.dtype, *, on_all: bool) -> bool:
    """Whether our head scores off a GPU. `asked`: the key `target_head`."""
    return asked if asked is not None else not on_all or dtype in (torch.bfloat16, torch.float16)


def check_base(config: Any) -> None:
    """Raise ValueError for a base that this method cannot train; `config`: its transformers config."""
    if config.is_encoder_decoder:
        raise ValueError(
            f"`sft` trains models that go on with their prompt, and the base is a `{config.model_type}`, an encoder-decoder. Use "
            "`call: seq2seq`."
        )


class _Trainer(WholeCheckpoints, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with whole checkpoints."""


def config_defaults(given: dict[str, Any], *, cpu: bool, seed: int) -> dict[str, Any]:
    """The keys of a stage with what rectune fills in: the recipe's seed, what the device can do, lazy rendering."""
    return filled(given, cpu=cpu, seed=seed, dataset_kwargs={"skip_prepare_dataset": True})
