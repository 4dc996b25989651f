"""One training as the planner follows it: its model without weights, and what a step of it forwards."""

from __future__ import annotations

from typing import Any, Literal

import torch

from rectune.decoding.language_model import positions_of
from rectune.methods.sft import own_head
from rectune.model.settings import ModelSettings
from rectune.planning.model import base_config, planned_model
from rectune.planning.need import StagePlan
from rectune.planning.step import Head

LONGEST = 1024  # where neither `max_length` nor the model's positions set a limit


def stage_plan(
    settings: ModelSettings, module: Any, section: dict[str, Any], config: Any, *, vocabulary: int | None, new_tokens: int,
    target: int, device: Literal["cpu", "cuda"], fixed: int | None = None,
) -> StagePlan:  # fmt: skip
    """A stage's model and how it is trained. `vocabulary`: tokens of the tokenizer, new ones included, or None for a
    checkpoint whose tokenizer is not read; `target`: tokens of a completion; `fixed`: see `StagePlan`."""
    base = base_config(settings, vocabulary=vocabulary)
    held = base.get_text_config().vocab_size
    rows = max(held, vocabulary if vocabulary is not None else held + new_tokens)
    model = planned_model(settings, base, rows=rows, new_tokens=list(range(rows - new_tokens, rows)))
    return StagePlan(
        model=model, device=device, optimiser=str(getattr(config.optim, "value", config.optim)),
        checkpointing=bool(config.activation_checkpointing), checkpointing_arguments=config.activation_checkpointing_kwargs,
        accumulates=config.gradient_accumulation_steps > 1, autocast=_autocast(module, section, config, device),
        target=target, head=_head(config, model, device), fixed=fixed, **in_a_step(config),
    )  # fmt: skip


def in_a_step(config: Any) -> dict[str, Any]:
    """What a step of a training forwards for its examples, where its method says so: sequences of each (preferences), a group of names
    after one prompt (rollouts), and whether its first weights are kept beside it."""
    sequences, group = int(getattr(config, "sequences", 1)), int(getattr(config, "group", 1))
    return {"sequences": sequences, "group": group, "keeps_reference": bool(getattr(config, "keeps_reference", False))}


def length_of(model: Any, config: Any) -> int:
    """The longest example of a stage: `max_length`, or where there is none what the model has positions for."""
    limit = positions_of(model)
    return int(config.max_length if config.max_length is not None else limit if limit is not None else LONGEST)


def _head(config: Any, model: Any, device: str) -> Head:
    """Which positions a loss makes logits for, and whose head does; on a GPU TRL's own knows the labels too."""
    options = vars(config)
    on_all = options.get("completion_only_loss") is False
    ours = own_head(options.get("target_head"), model.dtype, on_all=on_all) and not options.get("use_weighting")
    return "library" if device == "cpu" and not ours else "all" if on_all else "targets"


def _autocast(module: Any, section: dict[str, Any], config: Any, device: str) -> torch.dtype | None:
    """Mixed precision as the trainer will use it on `device`; this machine's Config has another default where it has no GPU."""
    if device == "cpu":
        return torch.bfloat16 if config.bf16 else None
    trl = any(kind.__module__.startswith("trl.") for kind in type(config).__mro__)
    default = trl and not section.get("fp16")  # TRL's default
    if section.get("bf16", default):
        return torch.bfloat16
    return torch.float16 if section.get("fp16") else None
