"""GRPOTrainer whose groups are the search's, and share a forward pass of their prompt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler
from trl import GRPOTrainer

from rectune.decoding.rollouts import RolledOut, Rollouts
from rectune.methods.group_head import Groups, inputs_of, put_group_head
from rectune.methods.preference import AsItWas
from rectune.methods.rewards import Rewards
from rectune.methods.training import WholeCheckpoints, order_seed, without_dropout
from rectune.runtime.seeded import hashed, seeded
from rectune.tasks.examples import Example, Mixture, fit_prompt
from rectune.tasks.rows import TaskRows


class Prompts:
    """The prompts of a mixture with the item that came next. Raises ValueError for completions that are no name of the trie."""

    def __init__(self, mixture: Mixture, rollouts: Rollouts) -> None:
        self.mixture, self._rollouts = mixture, rollouts
        check_rolled_out(mixture.tasks)

    def features(self, positions: Sequence[int], epoch: int) -> list[dict[str, Any]]:
        """`prompt`, `target`, `row` and `position` of each position."""
        distinct = sorted(set(positions))  # a group asks for its prompt as often as it has items
        examples = zip(distinct, self.mixture.examples(distinct, epoch), strict=True)
        made = {position: self._features(position, example, epoch) for position, example in examples}
        return [made[position] for position in positions]

    def _features(self, position: int, example: Example, epoch: int) -> dict[str, Any]:
        spec, rows, i = self.mixture.locate(position, epoch)
        target = int(rows.target[i])
        if example.completion != self._rollouts.name(target):
            raise ValueError(
                f"task `{spec.name}`, row {int(rows.row[i])}: its template writes the target otherwise than that of `rank`, by which items are rolled out."
            )
        prompt, most, depth = example.prompt, self.mixture.max_length, self._rollouts.trie.depth
        if most is not None and len(prompt) + depth > most:  # another name may be longer than the target's
            what = f"task `{spec.name}`, row {int(rows.row[i])}"
            prompt, _ = fit_prompt(
                self.mixture.encoder, spec.template, example.wording, rows.variables(i), room=most - depth, what=what
            )
        return {"prompt": prompt, "target": target, "row": int(rows.row[i]), "position": position}


def check_rolled_out(tasks: Sequence[tuple[Any, TaskRows]]) -> None:
    """Raise ValueError for tasks, of (spec, training rows), after whose prompts no items of the catalogue can be rolled out."""
    for spec, rows in tasks:
        if rows.kind != "item":
            raise ValueError(
                f"task `{spec.name}` names no items, so there is nothing to roll out. Give the stage `tasks` that do."
            )
        if rows.candidates is not None:
            raise ValueError(
                f"task `{spec.name}` chooses among candidates, and groups are rolled out over the whole catalogue. Use `s_dpo` with "
                "`negatives: candidates`."
            )


class _KeepsRollouts(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer whose checkpoints hold the rollouts that are still to be used, so that a training goes on as it would have."""

    _buffered_inputs: Any
    _step: int

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        place = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        place.mkdir(exist_ok=True)  # another process may not have made it yet
        torch.save({"step": self._step, "inputs": self._buffered_inputs}, place / self._file)

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (Path(checkpoint) / self._file).exists():
            kept = torch.load(Path(checkpoint) / self._file, map_location=self.args.device, weights_only=True)
            self._step, self._buffered_inputs = kept["step"], kept["inputs"]

    @property
    def _file(self) -> str:
        return f"rollouts-{self.accelerator.process_index}.pt"


class GroupTrainer(WholeCheckpoints, _KeepsRollouts):  # type: ignore[misc]
    """GRPOTrainer with whole checkpoints, whose rollouts are the search's, whose groups share a forward pass of their prompt, and whose
    reference is the stage's first weights, new tokens included."""

    control: Any  # what a Trainer has

    def __init__(
        self, model: Any, *, rollouts: Rollouts, rewards: Rewards, mixture: Mixture, args: Any, **given: Any
    ) -> None:
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
        drawn = self._draw(self._asked, None, 0)
        given = np.zeros(len(targets), dtype=np.int64)
        for codes in range(1, self.args.hints + 1):
            missed = np.flatnonzero(~(drawn.items == targets[:, None]).any(1))
            below = {int(i): self._rollouts.beginning(int(targets[i]), codes) for i in missed}
            again = [i for i, items in below.items() if len(items) >= each]
            if not again:
                break
            hinted = self._draw([self._asked[i] for i in again], [below[i].tolist() for i in again], codes)
            for name in ("items", "log_probs", "within"):
                getattr(drawn, name)[again] = getattr(hinted, name)
            given[again] = codes
        if (drawn.items < 0).any():
            raise ValueError(
                f"a group of {each} is not full: the search found fewer items. Lower `num_generations`, or raise `rank.beams`."
            )
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

    def _draw(self, asked: list[dict[str, Any]], only: list[list[int]] | None, codes: int) -> RolledOut:
        """Items for each prompt, by its position in the epoch and the step, whatever process it is on: a position is rolled out once in an epoch."""
        step = (self.args.seed, self.state.global_step, codes)
        seeds = [hashed(*step, row["position"]) >> 1 for row in asked]
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        try:
            return self._rollouts.draw(
                model.eval(), [row["prompt"] for row in asked], how=self.args.rollouts, each=self.num_generations, seeds=seeds,
                temperature=self.temperature, only=only,
            )  # fmt: skip
        finally:
            model.train(was_training)

    def _note(self, **said: float | None) -> None:
        mode = "train" if self.model.training else "eval"
        for name, value in said.items():
            if value is not None:
                self._metrics[mode][f"rollouts/{name}"].append(
                    float(self.accelerator.gather(torch.tensor(value, device=self.accelerator.device)).mean())
                )

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
            names, named = (x[:, -logits_to_keep:].reshape(-1, each, logits_to_keep) for x in (ids, mask))
            groups = Groups(ids[::each, :-logits_to_keep], mask[::each, :-logits_to_keep], names, named)
            given = inputs_of(groups, self._table, temperature=self.temperature, dtype=self.model.dtype)
            if torch.is_grad_enabled():  # neither the reference nor what was before
                self.meter.saw({"input_ids": given["input_ids"]})
            with self.accelerator.autocast():
                parts.append(model(**given))
        logps, entropies = (
            torch.cat([part[name] for part in parts]).flatten(0, 1) for name in ("log_probs", "entropy")
        )
        return logps, entropies if compute_entropy else None, None

    @property
    def _table(self) -> Any:
        return self._rollouts.table(self.accelerator.device) if self.args.log_probs == "catalogue" else None

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """A step; what it read is counted where it is forwarded."""
        return super(WholeCheckpoints, self).training_step(model, inputs, *args, **kwargs)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        args = self.args
        return WholeGroups(
            self._drawn_from, each=self.num_generations, prompts=args.generation_batch_size // self.num_generations,
            repeats=self.num_iterations * args.steps_per_generation, seed=order_seed(args),
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
            raise ValueError(
                f"a rollout takes {prompts} prompts, and there are {len(mixture)} examples. Lower `per_device_train_batch_size`."
            )
        self._mixture, self._each, self._prompts, self._repeats, self._seed = mixture, each, prompts, repeats, seed

    def __len__(self) -> int:
        return len(self._mixture) // self._prompts * self._prompts * self._each * self._repeats

    def __iter__(self) -> Any:
        order: NDArray[np.int64] = seeded(self._seed, "groups", self._mixture.epoch).permutation(len(self._mixture))
        for at in range(0, len(order) - self._prompts + 1, self._prompts):
            yield from np.tile(order[at : at + self._prompts].repeat(self._each), self._repeats).tolist()
