"""Direct preference optimisation with TRL's DPOTrainer: the target is preferred to another item, or to another answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl import DPOConfig

from rectune.methods.choosing import Choosing
from rectune.methods.contract import Trainable
from rectune.methods.language_model import load
from rectune.methods.preference import PreferenceTrainer, Rejecting, config_defaults, searches, tune
from rectune.methods.sft import check_base, refuse_sharding

__all__ = ["Config", "check_base", "config_defaults", "load", "searches", "train"]


@dataclass
class Config(Choosing, Rejecting, DPOConfig):  # type: ignore[misc]
    """TRL's DPOConfig and keys of our own."""

    @property
    def sequences(self) -> int:
        """Sequences that a step forwards for each example."""
        return 2


def train(task: Trainable, config: Config, folder: Path) -> None:
    """Tune `task.model` by pairs; leaves in `folder` and raises what `sft` does.

    The reference is the model as the stage began. Source: Rafailov et al., 2023, "Direct Preference Optimization".
    """
    refuse_sharding(config, task)
    tune(PreferenceTrainer, task, config, folder, 1, Pairs(int(task.encoder.tokenizer.pad_token_id)))


class Pairs:
    """Rows of a batch as DPOTrainer reads them: all chosen ones, then all rejected ones."""

    def __init__(self, pad: int) -> None:
        from trl.trainer.dpo_trainer import DataCollatorForPreference

        self._collate = DataCollatorForPreference(pad_token_id=pad)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        pairs = [{**example, "rejected_ids": example["rejected_ids"][0]} for example in examples]
        batch: dict[str, Any] = self._collate(pairs)
        return batch
