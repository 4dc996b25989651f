"""Training with weights that are cut over processes, FSDP or DeepSpeed: what is shown to work, and what is refused."""

from __future__ import annotations

import os
from typing import Any

from rectune.methods.contract import Trainable

SHARDING = {"fsdp": "ACCELERATE_USE_FSDP", "deepspeed": "ACCELERATE_USE_DEEPSPEED"}


def sharding_of(config: Any) -> str | None:
    """What cuts the weights, by its key or by the launcher: `fsdp`, `deepspeed`, or None."""
    return next((name for name, said in SHARDING.items() if getattr(config, name, None) or os.environ.get(said, "").lower() == "true"), None)  # fmt: skip


def refuse_pieces(config: Any, why: str) -> None:
    """Raise ValueError for FSDP or DeepSpeed in a method that does not go with weights in pieces."""
    if sharding_of(config) is not None:
        raise ValueError(f"FSDP and DeepSpeed cut weights into pieces, and {why}. Use several processes without them.")


def refuse_sharding(config: Any, task: Trainable) -> None:
    """Raise ValueError for what is not shown to be trained in pieces: with DeepSpeed an adapter or new tokens, with FSDP weights in 4 or 8 bit."""
    by, several = (
        sharding_of(config),
        "Use FSDP2 (recipes/accelerate/fsdp2.yaml), or recipes/accelerate/several-gpus.yaml.",
    )
    if by == "deepspeed" and (task.adapter or task.new_tokens):
        raise ValueError(
            "DeepSpeed is only for full fine-tuning without new tokens (`use_peft: false`, an index of titles): PEFT does not support trained rows of "
            f"embeddings there, and it is not installed where rectune is tested. {several}"
        )
    if by == "fsdp" and getattr(task.model, "is_quantized", False):
        raise ValueError(
            "FSDP is not shown to cut weights in 4 or 8 bit. Leave out `model.load_in_4bit`, or use recipes/accelerate/several-gpus.yaml."
        )
    if by == "fsdp" and task.adapter and config.target_head is False:
        raise ValueError(
            "`target_head: false`: TRL's head reads an adapter's embeddings from outside, where FSDP has them in pieces. Leave it out."
        )


def check_cut(trainer: Any, config: Any) -> None:
    """Raise ValueError where FSDP was asked for and does nothing, as off an accelerator, or is set up so that the model is not trained or not written whole."""
    if sharding_of(config) != "fsdp":
        return
    if not trainer.is_fsdp_enabled:
        raise ValueError(
            "FSDP was asked for, and Accelerate cuts weights only over several processes with an accelerator each: every process would train a copy. "
            "Leave it out."
        )
    plugin = trainer.accelerator.state.fsdp_plugin
    for wrong, said in (
        (plugin.fsdp_version != 2, "fsdp_version: 2"),
        ("FULL_STATE_DICT" not in str(plugin.state_dict_type), "fsdp_state_dict_type: FULL_STATE_DICT"),
        (
            plugin.cpu_ram_efficient_loading and hasattr(trainer.model, "peft_config"),
            "fsdp_cpu_ram_efficient_loading: false",
        ),
    ):
        if wrong:
            raise ValueError(
                f"FSDP: say `{said}` in the configuration of `accelerate launch`, as recipes/accelerate/fsdp2.yaml does."
            )
