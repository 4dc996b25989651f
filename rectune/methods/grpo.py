"""Group relative policy optimisation with TRL's GRPOTrainer: the search that ranks rolls out real items, and rewards say what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from trl import GRPOConfig

from rectune.decoding.rollouts import How
from rectune.methods.choosing import Choosing
from rectune.methods.contract import Trainable
from rectune.methods.group_trainer import GroupTrainer, Prompts, check_rolled_out
from rectune.methods.language_model import load
from rectune.methods.rewards import Rewards, reads_of, rewards_of
from rectune.methods.sft import check_base
from rectune.methods.sharding import refuse_pieces
from rectune.methods.training import filled, lazy, mixtures, run
from rectune.recipe.library import FROM_0, Range
from rectune.runtime.near import near

__all__ = ["Config", "check_asked", "check_base", "config_defaults", "load", "made_by", "needs", "searches", "train"]

WORDS = {
    "loss_type": ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"],
    "scale_rewards": ["group", "batch", "none"],
    "importance_sampling_level": ["token", "sequence"],
    "multi_objective_aggregation": ["sum_then_normalize", "normalize_then_sum"],
}
WHOLE = "the search reads them whole"
DEFAULT = ["hit"]
LogProbs = Literal["catalogue", "vocabulary"]
UNREAD = {
    "train_sampling_strategy": "the items of a group stay together, and prompts are drawn in a new order in each epoch",
    "pad_to_multiple_of": "groups are padded to their longest",
    "router_aux_loss_coef": "the loss is that of the rollouts alone",
}


@dataclass
class Config(Choosing, GRPOConfig):  # type: ignore[misc]
    """TRL's GRPOConfig and keys of our own."""

    refuses: ClassVar[dict[str, str]] = UNREAD
    ranges: ClassVar[dict[str, Range]] = {"beta": FROM_0}

    rewards: list[str] = field(
        default_factory=lambda: [*DEFAULT],
        metadata={
            "help": "What an item is worth: `hit`, `rank`, `similarity`, `prior`, or module:function of your own; `reward_weights` weighs them."
        },
    )
    rollouts: How = field(
        default="beams",
        metadata={
            "help": "How a group is made: `beams`, the best items of the search; `independent` draws; draws `without_replacement`."
        },
    )
    log_probs: LogProbs = field(
        default="catalogue",
        metadata={
            "help": "Whose log-probabilities the loss takes: `catalogue`, over the codes that some item has there, or `vocabulary`."
        },
    )
    hints: int = field(
        default=0,
        metadata={
            "help": "A group without its target is rolled out again with one more of the target's codes given, at most so many."
        },
    )
    importance: bool = field(
        default=True,
        metadata={
            "help": "Items that were drawn `without_replacement` are weighted by their probability over the chance that they were drawn."
        },
    )
    max_length: int | None = field(
        default=1024, metadata={"help": "Most tokens of a prompt and one name; the oldest history goes first."}
    )

    def __post_init__(self) -> None:
        if self.per_device_train_batch_size % self.num_generations:
            raise ValueError(
                f"`per_device_train_batch_size` counts items, and is {self.per_device_train_batch_size}; it must be a multiple of a group, "
                f"`num_generations` = {self.num_generations}."
            )
        super().__post_init__()
        for key, words in WORDS.items():
            given = getattr(self, key)
            if given not in words:
                raise ValueError(f"`{key}`: there is no {given!r}.{near(str(given), words)}")
        if not self.rewards:
            raise ValueError("`rewards` is empty. Name one, such as `hit`.")
        rewards_of(self.rewards)
        if self.reward_weights is not None and len(self.reward_weights) != len(self.rewards):
            raise ValueError(
                f"`reward_weights` has {len(self.reward_weights)} numbers for {len(self.rewards)} `rewards`."
            )
        if self.rollouts == "beams" and self.temperature != 1.0:
            raise ValueError(
                "`temperature` is for drawn items; `rollouts: beams` takes the best ones. Use `independent` or `without_replacement`."
            )
        if self.rollouts != "beams" and self.log_probs == "vocabulary":
            raise ValueError(
                "`log_probs: vocabulary` does not go with drawn items, which are drawn over the catalogue. Leave it out, or use `rollouts: beams`."
            )

    @property
    def group(self) -> int:
        """Items whose prompt a step forwards once."""
        return int(self.num_generations)

    @property
    def keeps_reference(self) -> bool:
        """Whether the stage's first weights are kept beside it."""
        return bool(self.beta)


def config_defaults(given: dict[str, Any], *, cpu: bool, seed: int) -> dict[str, Any]:
    """The keys of a stage with what rectune fills in: the recipe's seed, what the device can do, lazy rendering."""
    size = {
        "per_device_eval_batch_size": given.get("num_generations", 8)
    }  # TRL wants whole groups, and evaluations roll nothing out
    # Items are rolled out without dropout: with it the loss would be of another distribution.
    return filled({"disable_dropout": True, **size, **given}, cpu=cpu, seed=seed)


def searches(section: dict[str, Any]) -> bool:
    """The training lists items by the search."""
    return True


def needs(section: dict[str, Any]) -> tuple[str, ...]:
    """Boxes of the run that the rewards read."""
    return reads_of(section.get("rewards") or DEFAULT)


def made_by(section: dict[str, Any]) -> tuple[Any, ...]:
    """Whose code the training is, beside its method's."""
    return tuple(rewards_of(section.get("rewards") or DEFAULT))


def check_asked(config: Config, tasks: Sequence[Any], ranked: Any, beams: int) -> None:
    """Raise ValueError for tasks whose completions are no names of the trie, and for weights in pieces."""
    refuse_pieces(config, WHOLE)
    for task in tasks:
        if task.template.end != ranked.template.end:
            raise ValueError(
                f"`{task.key}` ends its answers otherwise than `{ranked.template.name}`, by which items are rolled out (`rank.template`). Say the same "
                "`end` in both templates."
            )


def check_rows(config: Config, tasks: Sequence[Any]) -> None:
    """Raise ValueError for rows after whose prompts no items can be rolled out."""
    check_rolled_out(tasks)


def train(task: Trainable, config: Config, folder: Path) -> None:
    """Tune `task.model` by what its own items are worth; leaves in `folder` and raises what `sft` does.

    The reference of `beta` is the model as the stage began. Source: Shao et al., 2024, "DeepSeekMath"; constrained rollouts as in
    MiniOneRec (2025), with the reward of a row read from that row.
    """
    config.output_dir = str(folder / "checkpoints")
    parts = mixtures(task, config.max_length, loss_on_all=False)
    rollouts = task.rollouts()
    prompts = {part: Prompts(mixture, rollouts) for part, mixture in parts.items()}
    if config.num_generations > rollouts.trie.n_items and config.rollouts != "independent":
        raise ValueError(
            f"`num_generations` is {config.num_generations}, and the catalogue has {rollouts.trie.n_items} items."
        )
    evaluated, validation = None, parts["validation"]
    if len(validation) and config.eval_strategy != "no":
        evaluated = lazy(validation, prompts["validation"].features, most=config.ranked_rows)
    trainer = GroupTrainer(
        task.model, rollouts=rollouts, rewards=Rewards(config.rewards, split=task.split, held=task.held, each=config.num_generations), mixture=parts["train"], args=config,
        processing_class=task.encoder.tokenizer, train_dataset=lazy(parts["train"], prompts["train"].features), eval_dataset=evaluated,
    )  # fmt: skip
    run(trainer, task, parts["train"], folder)
