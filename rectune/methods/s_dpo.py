"""S-DPO: the target is preferred to several items at once, by a softmax over them (Chen et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.nn.functional import softplus
from torch.nn.utils.rnn import pad_sequence
from trl import DPOConfig

from rectune.methods import preference
from rectune.methods.choosing import Choosing
from rectune.methods.contract import Trainable
from rectune.methods.language_model import load
from rectune.methods.preference import UNREAD, PreferenceTrainer, Rejecting, config_defaults, searches, tune
from rectune.methods.sft import check_base

__all__ = [
    "Config",
    "check_asked",
    "check_base",
    "check_rows",
    "config_defaults",
    "load",
    "searches",
    "softmax_loss",
    "train",
]

_ONE_LOSS = "the loss of `s_dpo` is the softmax over its negatives; `dpo` has TRL's other losses"


@dataclass
class Config(Choosing, Rejecting, DPOConfig):  # type: ignore[misc]
    """TRL's DPOConfig, without what belongs to losses of pairs, and keys of our own."""

    refuses: ClassVar[dict[str, str]] = UNREAD | dict.fromkeys(
        (
            "loss_type", "loss_weights", "label_smoothing", "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef", "use_weighting",
            "discopop_tau",
        ),
        _ONE_LOSS,
    )  # fmt: skip

    negatives_each: int = field(default=3, metadata={"help": "Items that are rejected beside each target."})

    keeps_reference: ClassVar[bool] = True

    @property
    def sequences(self) -> int:
        """Sequences that a step forwards for each example."""
        return 1 + self.negatives_each


def train(task: Trainable, config: Config, folder: Path) -> None:
    """Tune `task.model`; leaves in `folder` and raises what `sft` does.

    The reference is the model as the stage began. With one negative this is `dpo` with its sigmoid loss.
    """
    tune(Trainer, task, config, folder, config.negatives_each, Sets(int(task.encoder.tokenizer.pad_token_id)))


def check_asked(config: Config, tasks: Sequence[Any], ranked: Any, beams: int) -> None:
    """Raise ValueError for tasks that the model's own lists do not serve."""
    preference.check_asked(config, config.negatives_each, tasks, ranked, beams)


def check_rows(config: Config, tasks: Sequence[Any]) -> None:
    """Raise ValueError for rows of which too little is known to be worse."""
    preference.check_rows(config, config.negatives_each, tasks)


def softmax_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """-log sigmoid(-log sum_j exp(rejected_j - chosen)), averaged over rows; `chosen` (rows,) and `rejected` (negatives, rows) are
    rewards, beta times the log-ratio to the reference. By log-sum-exp, so that it is finite wherever they are."""
    return softplus(torch.logsumexp(rejected - chosen, 0)).mean()


class Sets:
    """Rows of a batch: all chosen ones, then the first rejected one of each, then the second."""

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sets = [[example["chosen_ids"], *example["rejected_ids"]] for example in examples]
        pairs = [
            (example["prompt_ids"], some[n])
            for n in range(len(sets[0]))
            for example, some in zip(examples, sets, strict=True)
        ]
        ids = [torch.tensor(prompt + answer) for prompt, answer in pairs]
        answers = [torch.tensor([0] * len(prompt) + [1] * len(answer)) for prompt, answer in pairs]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self._pad),
            "attention_mask": pad_sequence([torch.ones_like(some) for some in ids], batch_first=True),
            "completion_mask": pad_sequence(answers, batch_first=True),
        }


class Trainer(PreferenceTrainer):
    """The trainer of `dpo` with another loss."""

    def _compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool) -> Any:
        if return_outputs:
            raise NotImplementedError("s_dpo has no logits to return")
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        given = {
            "input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "use_cache": False, "labels": labels,
            "fused_lm_head": True,
        }  # fmt: skip
        before = self.ref_model(**given).log_probs.sum(1)
        out = model(**given, output_router_logits=True) if self.aux_loss_enabled else model(**given)
        sets = self.args.negatives_each + 1
        rewards = (self.args.beta * (out.log_probs.sum(1) - before)).view(sets, -1)
        self._note(rewards.detach(), out, inputs)
        loss = softmax_loss(rewards[0], rewards[1:])
        return loss + self.router_aux_loss_coef * out.aux_loss if self.aux_loss_enabled else loss

    def _note(self, rewards: torch.Tensor, out: Any, inputs: dict[str, torch.Tensor]) -> None:
        mode = "train" if self.model.training else "eval"
        every = self.accelerator.gather_for_metrics(rewards.T.contiguous()).T
        margins = every[0] - every[1:].amax(0)
        answers = inputs["completion_mask"][:, 1:]
        if mode == "train":
            self._total_train_tokens += int(self.accelerator.gather_for_metrics(inputs["attention_mask"].sum()).sum())
        said = {
            "rewards/chosen": every[0].mean(), "rewards/rejected": every[1:].mean(), "rewards/margins": margins.mean(),
            "rewards/accuracies": (margins > 0).float().mean(), "entropy": (out.entropy.detach() * answers).sum() / answers.sum().clamp(min=1),
        }  # fmt: skip
        for name, value in said.items():
            self._metrics[mode][name].append(float(value))
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
