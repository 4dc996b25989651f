"""Group relative policy optimisation with TRL's GRPOTrainer: the search that ranks rolls out real items, and rewards say what they are worth."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler
from trl import GRPOConfig, GRPOTrainer

from rectune.decoding.rollouts import How, RolledOut, Rollouts
from rectune.methods.choosing import Choosing
from rectune.methods.contract import Trainable
from rectune.methods.group_head import Groups, inputs_of, put_group_head
from rectune.methods.language_model import load
from rectune.methods.preference import AsItWas
from rectune.methods.rewards import RolledGroups
from rectune.methods.sft import SHARDING, check_base
from rectune.methods.training import WholeCheckpoints, filled, lazy, mixtures, run, without_dropout
from rectune.recipe.calls import HOMES, check_first, named
from rectune.recipe.library import FROM_0, Range
from rectune.runtime.near import near
from rectune.runtime.seeded import seeded
from rectune.tasks.examples import Mixture

__all__ = ["Config", "check_asked", "check_base", "config_defaults", "load", "made_by", "needs", "searches", "train"]

LOSSES = ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]
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
        default_factory=lambda: ["hit"],
        metadata={"help": "What an item is worth: `hit`, `rank`, `similarity`, `prior`, or module:function of your own; `reward_weights` weighs them."},
    )
    rollouts: How = field(
        default="beams",
        metadata={"help": "How a group is made: `beams`, the best items of the search; `independent` draws; draws `without_replacement`."},
    )
    log_probs: str = field(
        default="catalogue",
        metadata={"help": "Whose log-probabilities the loss takes: `catalogue`, over the codes that some item has there, or `vocabulary`."},
    )
    hints: int = field(
        default=0,
        metadata={"help": "A group without its target is rolled out again with one more of the target's codes given, at most so many."},
    )
    importance: bool = field(
        default=True,
        metadata={"help": "Items that were drawn `without_replacement` are weighted by their probability over the chance that they were drawn."},
    )
    max_length: int | None = field(default=1024, metadata={"help": "Most tokens of a prompt and one name; the oldest history goes first."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_type not in LOSSES:
            raise ValueError(f"`loss_type`: there is no loss {self.loss_type!r}.{near(self.loss_type, LOSSES)}")
        if self.log_probs not in ("catalogue", "vocabulary"):
            raise ValueError(f"`log_probs` must be `catalogue` or `vocabulary`, got {self.log_probs!r}.")
        if not self.rewards:
            raise ValueError("`rewards` is empty. Name one, such as `hit`.")
        if self.reward_weights is not None and len(self.reward_weights) != len(self.rewards):
            raise ValueError(f"`reward_weights` has {len(self.reward_weights)} numbers for {len(self.rewards)} `rewards`.")
        if self.rollouts == "beams" and self.temperature != 1.0:
            raise ValueError("`temperature` is for drawn items; `rollouts: beams` takes the best ones. Use `independent` or `without_replacement`.")
        if self.rollouts != "beams" and self.log_probs == "vocabulary":
            raise ValueError("`log_probs: vocabulary` does not go with drawn items, which are drawn over the catalogue. Leave it out, or use `rollouts: beams`.")
        if self.per_device_train_batch_size % self.num_generations:
            raise ValueError(
                f"`per_device_train_batch_size` counts items, and is {self.per_device_train_batch_size}; it must be a multiple of a group, "
                f"`num_generations` = {self.num_generations}."
            )
        if self.cycle > 1 and (self.save_strategy == "epoch" or (self.save_strategy == "steps" and self.save_steps % self.cycle)):
            raise ValueError(
                f"rollouts are used for {self.cycle} steps (`num_iterations`, `steps_per_generation`), and a training that goes on makes them anew. Save "
                f"by steps, at multiples of {self.cycle}."
            )

    @property
    def cycle(self) -> int:
        """Optimizer steps between one rollout and the next."""
        return max(1, self.steps_per_generation * self.num_iterations // self.gradient_accumulation_steps)


def config_defaults(given: dict[str, Any], *, cpu: bool, seed: int) -> dict[str, Any]:
    """The keys of a stage with what rectune fills in: the recipe's seed, what the device can do, lazy rendering."""
    size = {"per_device_eval_batch_size": given.get("num_generations", 8)}  # TRL wants whole groups, and evaluations roll nothing out
    # Items are rolled out without dropout: with it the loss would be of another distribution.
    return filled({"activation_checkpointing": False, "disable_dropout": True, **size, **given}, cpu=cpu, seed=seed)


def searches(section: dict[str, Any]) -> bool:
    """The training lists items by the search."""
    return True


def rewards_of(names: Sequence[str], where: str = "`rewards`") -> list[Callable[..., Any]]:
    """The functions that rewards name. Raises ValueError for a name that means nothing or a function that takes something else."""
    home = HOMES["stages.rewards"]
    found = []
    for name in names:
        function = named(name, home, where)
        check_first(function, home, where)
        found.append(function)
    return found


def needs(section: dict[str, Any]) -> tuple[str, ...]:
    """Boxes of the run that the rewards read."""
    reads = [set(inspect.signature(reward).parameters) for reward in rewards_of(section.get("rewards") or ["hit"])]
    return tuple(name for name in HOMES["stages.rewards"].may if any(name in some for some in reads))


def made_by(section: dict[str, Any]) -> tuple[Any, ...]:
    """Whose code the training is, beside its method's."""
    return tuple(rewards_of(section.get("rewards") or ["hit"]))


def check_asked(config: Config, tasks: Sequence[Any], ranked: Any, beams: int) -> None:
    """Raise ValueError for tasks whose completions are no names of the trie."""
    for task in tasks:
        if task.template.end != ranked.template.end:
            raise ValueError(
                f"`{task.key}` ends its answers otherwise than `{ranked.template.name}`, by which items are rolled out (`rank.template`). Say the same "
                "`end` in both templates."
            )


def train(task: Trainable, config: Config, folder: Path) -> None:
    """Tune `task.model` by what its own items are worth; leaves in `folder` and raises what `sft` does.

    The reference of `beta` is the model as the stage began. Source: Shao et al., 2024, "DeepSeekMath"; constrained rollouts as in
    MiniOneRec (2025), with the reward of a row read from that row.
    """
    if config.fsdp or config.deepspeed or any(os.environ.get(name) == "true" for name in SHARDING):
        raise ValueError("FSDP and DeepSpeed cut weights into pieces, and the search wants them whole. Use several processes without them.")
    config.output_dir = str(folder / "checkpoints")
    parts = mixtures(task, config.max_length, loss_on_all=False)
    rollouts = task.rollouts()
    prompts = {part: Prompts(mixture, rollouts) for part, mixture in parts.items()}
    if config.num_generations > rollouts.trie.n_items and config.rollouts != "independent":
        raise ValueError(f"`num_generations` is {config.num_generations}, and the catalogue has {rollouts.trie.n_items} items.")
    evaluated, validation = None, parts["validation"]
    if len(validation) and config.eval_strategy != "no":
        evaluated = lazy(validation, prompts["validation"].features, most=config.ranked_rows)
    trainer = GroupTrainer(
        task.model, rollouts=rollouts, rewards=Rewards(task, config), mixture=parts["train"], args=config,
        processing_class=task.encoder.tokenizer, train_dataset=lazy(parts["train"], prompts["train"].features), eval_dataset=evaluated,
    )  # fmt: skip
    run(trainer, task, parts["train"], folder)


class Prompts:
    """The prompts of a mixture with the item that came next. Raises ValueError for completions that are no name of the trie."""

    def __init__(self, mixture: Mixture, rollouts: Rollouts) -> None:
        self.mixture, self._rollouts = mixture, rollouts
        self.features = lru_cache(4096)(self._features)  # a group asks for its prompt as often as it has items
        for spec, rows in mixture.tasks:
            if rows.kind != "item":
                raise ValueError(f"task `{spec.name}` names no items, so there is nothing to roll out. Give the stage `tasks` that do.")

    def _features(self, position: int, epoch: int) -> dict[str, Any]:
        spec, rows, i = self.mixture.locate(position, epoch)
        example, target = self.mixture.example(position, epoch), int(rows.target[i])
        if example.completion != self._rollouts.name(target):
            raise ValueError(
                f"task `{spec.name}`, row {int(rows.row[i])}: its template writes the target otherwise than that of `rank`, by which items are rolled out."
            )
        return {"prompt": example.prompt, "target": target, "row": int(rows.row[i])}


class Rewards:
    """The rewards of a stage as functions that GRPOTrainer calls, each told what it reads of the run."""

    def __init__(self, task: Trainable, config: Config) -> None:
        self._split, self._each = task.split, config.num_generations
        self.names = list(config.rewards)
        self.functions = [
            self._wrapped(name, function, {r: task.held[r] for r in needs({"rewards": [name]})})
            for name, function in zip(self.names, rewards_of(self.names), strict=True)
        ]

    def _wrapped(self, name: str, function: Callable[..., Any], held: dict[str, Any]) -> Callable[..., list[float]]:
        def reward(*, item: list[int], log_prob: list[float], target: list[int], row: list[int], **rest: Any) -> list[float]:
            groups = RolledGroups(
                np.array(item, dtype=np.int32).reshape(-1, self._each), np.array(log_prob, dtype=np.float32).reshape(-1, self._each),
                np.array(target[:: self._each]), np.array(row[:: self._each]), self._split,
            )  # fmt: skip
            found = np.asarray(function(groups, **held), dtype=np.float64)
            if found.shape != groups.items.shape:
                raise ValueError(f"the reward `{name}` gave numbers of shape {found.shape} for items of shape {groups.items.shape}.")
            if not np.isfinite(found).all():
                g, i = np.argwhere(~np.isfinite(found))[0]
                raise ValueError(
                    f"the reward `{name}` gave {found[g, i]} for item {self._split.log.items['item_id'][int(groups.items[g, i])]} in row {groups.row[g]}; it "
                    "must be a number."
                )
            return [float(value) for value in found.ravel()]

        reward.__name__ = name.rpartition(":")[2]
        return reward


class GroupTrainer(WholeCheckpoints, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer with whole checkpoints, whose rollouts are the search's, whose groups share a forward pass of their prompt, and whose
    reference is the stage's first weights, new tokens included."""

    def __init__(self, model: Any, *, rollouts: Rollouts, rewards: Rewards, mixture: Mixture, args: Config, **given: Any) -> None:
        self._rollouts, self._drawn_from = rollouts, mixture
        beta, args.beta = args.beta, 0.0  # GRPOTrainer's own reference is the base, or a file
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        super().__init__(model=model, reward_funcs=rewards.functions, rollout_func=self._roll_out, args=args, **given)
        self.beta = args.beta = beta
        self.aux_loss_enabled = False
        self.max_completion_length = rollouts.trie.depth  # by which dr_grpo divides
        put_group_head(model)
        if args.disable_dropout:
            without_dropout(model)
        if beta:
            self.ref_model = AsItWas(model)

    # ------------------------------------------------------------------------------------------------ what is rolled out

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._asked = inputs[:: self.num_generations]
        found: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.args.rollouts == "without_replacement" and self.args.importance:
            found["advantages"] = weighted(found["advantages"], self._drawn)
        return found

    def _roll_out(self, prompts: list[list[int]], trainer: Any) -> dict[str, Any]:
        each, targets = self.num_generations, np.array([row["target"] for row in self._asked])
        asked = [row["prompt"] for row in self._asked]
        drawn = self._draw(asked, None, 0)
        given = np.zeros(len(asked), dtype=np.int64)
        for codes in range(1, self.args.hints + 1):
            missed = np.flatnonzero(~(drawn.items == targets[:, None]).any(1))
            below = {int(i): self._rollouts.beginning(int(targets[i]), codes) for i in missed}
            again = [i for i, items in below.items() if len(items) >= each]
            if not again:
                break
            hinted = self._draw([asked[i] for i in again], [below[i].tolist() for i in again], codes)
            for name in ("items", "log_probs", "within"):
                getattr(drawn, name)[again] = getattr(hinted, name)
            given[again] = codes
        self._drawn = drawn
        names = [self._rollouts.name(int(item)) for item in drawn.items.ravel()]
        hit = (drawn.items == targets[:, None]).any(1)
        self._note(hit=float(hit.mean()), hinted=float((given > 0).mean()) if self.args.hints else None)
        found = {
            "prompt_ids": prompts, "completion_ids": names, "logprobs": None, "item": drawn.items.ravel().tolist(),
            "log_prob": drawn.log_probs.ravel().tolist(),
        }  # fmt: skip
        if self.args.hints:
            found["env_mask"] = [
                [int(place >= codes) for place in range(len(name))]
                for name, codes in zip(names, given.repeat(each), strict=True)
            ]
        return found

    def _draw(self, prompts: list[list[int]], only: list[list[int]] | None, codes: int) -> RolledOut:
        args = self.args
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        try:
            seed = [args.seed, self.state.global_step, self._step % args.gradient_accumulation_steps, self.accelerator.process_index, codes]
            return self._rollouts.draw(
                model.eval(), prompts, how=args.rollouts, each=self.num_generations, seed=seed, temperature=self.temperature, only=only
            )
        finally:
            model.train(was_training)

    def _note(self, **said: float | None) -> None:
        mode = "train" if self.model.training else "eval"
        for name, value in said.items():
            if value is not None:
                self._metrics[mode][f"rollouts/{name}"].append(float(self.accelerator.gather(torch.tensor(value, device=self.accelerator.device)).mean()))

    # ------------------------------------------------------------------------------------------------ what the loss reads

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As GRPOTrainer's, but groups stay together."""
        args = self.args
        if self._step % (args.steps_per_generation * self.num_iterations) == 0 or self._buffered_inputs is None:
            whole = self._generate_and_score_completions(generation_batch)
            size = len(whole["completion_ids"]) // args.steps_per_generation
            self._buffered_inputs = [
                {k: v if v.dim() == 0 else v[at * size : (at + 1) * size] for k, v in whole.items()}
                for at in range(args.steps_per_generation)
            ]
        return self._buffered_inputs[self._step % args.steps_per_generation]

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int, batch_size: int | None = None,
        compute_entropy: bool = False, compute_aux_loss: bool = False, **rest: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
        each, parts = self.num_generations, []
        for at in range(0, len(input_ids), batch_size or len(input_ids)):
            ids, mask = (x[at : at + (batch_size or len(x))] for x in (input_ids, attention_mask))
            groups = Groups(
                ids[::each, :-logits_to_keep], mask[::each, :-logits_to_keep],
                ids[:, -logits_to_keep:].unflatten(0, (-1, each)), mask[:, -logits_to_keep:].unflatten(0, (-1, each)),
            )  # fmt: skip
            given = inputs_of(groups, self._table, temperature=self.temperature, dtype=self.model.dtype)
            if model is self.model or model is self.model_wrapped:
                self._saw(given, mask)
            with self.accelerator.autocast():
                parts.append(model(**given))
        logps, entropies = (torch.cat([part[name] for part in parts]).flatten(0, 1) for name in ("log_probs", "entropy"))
        return logps, entropies if compute_entropy else None, None

    @property
    def _table(self) -> Any:
        return self._rollouts.table(self.accelerator.device) if self.args.log_probs == "catalogue" else None

    def _saw(self, given: dict[str, Any], mask: torch.Tensor) -> None:
        if torch.is_grad_enabled():
            self.meter.saw({"input_ids": given["input_ids"]})

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """A step; what it read is counted where it is forwarded."""
        return super(WholeCheckpoints, self).training_step(model, inputs, *args, **kwargs)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        args = self.args
        return WholeGroups(
            self._drawn_from, each=self.num_generations, prompts=args.generation_batch_size // self.num_generations,
            repeats=self.num_iterations * args.steps_per_generation, seed=args.data_seed if args.data_seed is not None else args.seed,
        )  # fmt: skip

    def log(self, logs: dict[str, float], *args: Any) -> None:
        """As GRPOTrainer's, without the lengths of texts."""
        for metrics in self._metrics.values():
            for name in [name for name in metrics if name.startswith("completions/")]:
                del metrics[name]
        super().log(logs, *args)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Rank validation rows, by a callback; nothing is rolled out."""
        metrics: dict[str, float] = {}
        self.model.eval()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def weighted(advantages: torch.Tensor, drawn: RolledOut) -> torch.Tensor:
    """Advantages (groups x each,) of items that were drawn without replacement: against the mean under their weights, times those.

    A weight is the item's probability over the chance that it was drawn; a group's weights sum to its size.
    """
    ratio = drawn.log_probs - drawn.within
    weight = np.exp(ratio - ratio.max(1, keepdims=True))
    share = torch.from_numpy(weight / weight.sum(1, keepdims=True)).to(advantages)
    own = advantages.view(share.shape)
    return ((own - (share * own).sum(1, keepdim=True)) * share * share.shape[1]).flatten()


class WholeGroups(Sampler[int]):
    """Positions of an epoch's examples in a new order, each as often as a group has items and each batch of prompts as often as its
    rollouts are used; what does not fill a batch is left out. The order depends on the seed and the epoch only."""

    def __init__(self, mixture: Mixture, *, each: int, prompts: int, repeats: int, seed: int) -> None:
        if len(mixture) < prompts:
            raise ValueError(f"a rollout takes {prompts} prompts, and there are {len(mixture)} examples. Lower `per_device_train_batch_size`.")
        self._mixture, self._each, self._prompts, self._repeats, self._seed = mixture, each, prompts, repeats, seed

    def __len__(self) -> int:
        return len(self._mixture) // self._prompts * self._prompts * self._each * self._repeats

    def __iter__(self) -> Any:
        order: NDArray[np.int64] = seeded(self._seed, "groups", self._mixture.epoch).permutation(len(self._mixture))
        for at in range(0, len(order) - self._prompts + 1, self._prompts):
            yield from np.tile(order[at : at + self._prompts].repeat(self._each), self._repeats).tolist()
