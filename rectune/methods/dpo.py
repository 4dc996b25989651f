"""Direct preference optimisation with TRL's DPOTrainer: the target is preferred to another item, or to another answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from trl import DPOConfig

from rectune.methods import preference
from rectune.methods.choosing import Choosing
from rectune.methods.contract import Trainable
from rectune.methods.language_model import load
from rectune.methods.preference import UNREAD, PreferenceTrainer, Rejecting, config_defaults, searches, tune
from rectune.methods.sft import check_base
from rectune.runtime.near import near

LOSSES = [
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down",
    "discopop", "sft", "sigmoid_norm",
]  # fmt: skip

__all__ = ["Config", "check_asked", "check_base", "check_rows", "config_defaults", "load", "searches", "train"]


@dataclass
class Config(Choosing, Rejecting, DPOConfig):  # type: ignore[misc]
    """TRL's DPOConfig and keys of our own."""

    refuses: ClassVar[dict[str, str]] = UNREAD

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.loss_type:
            if name not in LOSSES:
                raise ValueError(f"`loss_type`: there is no loss {name!r}.{near(name, LOSSES)}")
        if "exo_pair" in self.loss_type and not self.label_smoothing > 0:
            raise ValueError("`label_smoothing` must be above 0 with `loss_type: exo_pair`, e.g. 0.001.")
        if self.use_weighting and {"aot", "aot_unpaired"} & set(self.loss_type):
            raise ValueError("`use_weighting` does not go with `loss_type` aot or aot_unpaired.")

    keeps_reference: ClassVar[bool] = True

    @property
    def sequences(self) -> int:
        """Sequences that a step forwards for each example."""
        return 2


def train(task: Trainable, config: Config, folder: Path) -> None:
    """Tune `task.model` by pairs; leaves in `folder` and raises what `sft` does.

    The reference is the model as the stage began. Source: Rafailov et al., 2023, "Direct Preference Optimization".
    """
    tune(PreferenceTrainer, task, config, folder, 1, Pairs(int(task.encoder.tokenizer.pad_token_id)))


def check_asked(config: Config, tasks: Sequence[Any], ranked: Any, beams: int) -> None:
    """Raise ValueError for tasks that the model's own lists do not serve."""
    preference.check_asked(config, 1, tasks, ranked, beams)


def check_rows(config: Config, tasks: Sequence[Any]) -> None:
    """Raise ValueError for rows of which too little is known to be worse."""
    preference.check_rows(config, 1, tasks)


class Pairs:
    """Rows of a batch as DPOTrainer reads them: all chosen ones, then all rejected ones."""

    def __init__(self, pad: int) -> None:
        from trl.trainer.dpo_trainer import DataCollatorForPreference

        self._collate = DataCollatorForPreference(pad_token_id=pad)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        pairs = [{**example, "rejected_ids": example["rejected_ids"][0]} for example in examples]
        batch: dict[str, Any] = self._collate(pairs)
        return batch
