"""Rollouts and steps of `grpo`: by the search, and by `model.generate` with a dictionary trie inside the same trainer.

    python -m benchmarks.rollouts RUN [--pairs 5] [--stages.1.KEY VALUE …]

RUN is a finished run of a recipe whose last stage is `grpo` with `rollouts: beams`, such as grpo-scientific-cpu. Both sides roll out the same
prompts with the model that the stage began with, without hints, and take a step with it; beams are ranked by the whole vocabulary's probabilities, as `generate`
does. The gate: at least 99 % of the groups hold the same items. Seconds are those of the process's CPU, or of the clock where there is a GPU.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
import trl

from benchmarks.decoding import PrefixTree
from benchmarks.gpu_sections.made import trainable
from benchmarks.side_by_side import claim, say, side_by_side
from rectune.cli import parse_overrides
from rectune.decoding.padding import left_pad
from rectune.decoding.rollouts import RolledOut, Rollouts
from rectune.methods.group_trainer import GroupTrainer, Prompts
from rectune.methods.rewards import Rewards
from rectune.methods.training import lazy, mixtures
from rectune.model.adapters import load_tuned, with_adapter
from rectune.model.load import load_base
from rectune.model.new_tokens import new_token_ids
from rectune.run.run import Run, open_run


class ByGenerate(Rollouts):
    """The rival: what the search gives, out of `generate`, whose prompts come once for each beam."""

    def draw(self, model: Any, prompts: Any, **given: Any) -> RolledOut:
        """As `Rollouts.draw` with beams; of a group the prompt is given once, and `generate` repeats it."""
        each, pad = given["each"], self._pad
        ids, mask = left_pad(prompts, pad, model.device)
        tree = PrefixTree(self._names, ids.shape[1])
        with torch.no_grad():
            out = model.generate(
                input_ids=ids, attention_mask=mask, num_beams=each, num_return_sequences=each, max_new_tokens=self.trie.depth,
                min_new_tokens=self.trie.depth, do_sample=False, prefix_allowed_tokens_fn=tree, length_penalty=0.0,
                return_dict_in_generate=True, output_scores=True, eos_token_id=None, pad_token_id=pad,
            )  # fmt: skip
        leaves = np.array([self.trie.walk(name) for name in out.sequences[:, ids.shape[1] :].tolist()])
        scores = out.sequences_scores.float().cpu().numpy().reshape(-1, each)
        return RolledOut(self.trie.item_of(leaves).reshape(-1, each), scores, np.zeros_like(scores))


class Case:
    """The last stage of a run at its first step."""

    def __init__(self, run: Run, kind: type[Rollouts], folder: Path) -> None:
        training = run.asked.trainings[-1]
        self.config = training.config()
        if training.section["call"] != "grpo" or self.config.rollouts != "beams":
            raise SystemExit("the last stage of RUN must be `grpo` with `rollouts: beams`")
        self.config.hints = 0  # `generate` cannot give the beginning of a name
        self.config.output_dir, self.config.eval_strategy, self.config.load_best_model_at_end = str(folder), "no", False
        self.task = trainable(
            run, _before(run, training.number), new_token_ids(run.encoder.tokenizer, run.index), number=training.number
        )
        rank, pad = run.asked.rank, int(run.encoder.tokenizer.pad_token_id)
        rollouts = kind(run["trie"], pad=pad, scores="full", batch_tokens=rank.batch_tokens)
        mixture = mixtures(self.task, self.config.max_length, loss_on_all=False)["train"]
        rewards = Rewards(self.config.rewards, split=run.split, held=self.task.held, each=self.config.num_generations)
        prompts = Prompts(mixture, rollouts)
        self.trainer = GroupTrainer(
            self.task.model, rollouts=rollouts, rewards=rewards, mixture=mixture, args=self.config, processing_class=run.encoder.tokenizer,
            train_dataset=lazy(mixture, prompts.features),
        )  # fmt: skip
        self.trainer.meter = cast(Any, _Nothing())
        self.trainer.current_gradient_accumulation_steps = self.config.gradient_accumulation_steps
        self.trainer.create_optimizer()
        count = self.config.generation_batch_size // self.config.num_generations
        rows = prompts.features(np.linspace(0, len(mixture) - 1, count).astype(int).tolist(), 0)
        self.inputs = [dict(row) for row in rows for _ in range(self.config.num_generations)]

    def roll_out(self) -> np.ndarray:
        """One step's groups; the items."""
        self.trainer._asked = self.inputs[:: self.config.num_generations]
        self.trainer._roll_out([row["prompt"] for row in self.inputs], self.trainer)
        return self.trainer._drawn.items

    def step(self) -> None:
        """A step with what leads to it: groups, rewards, reference, loss and gradients."""
        self.trainer._step = 0
        self.trainer.model.train()
        self.trainer.training_step(self.trainer.model, self.inputs, None)
        self.trainer.optimizer.zero_grad()


class _Nothing:
    def saw(self, batch: dict[str, Any]) -> None:
        """Count nothing."""


def _before(run: Run, number: int) -> Any:
    asked, base = run.asked, run.place("base").folder
    if number:
        tuned = run.place(f"train{number - 1}").folder / "model"
        return load_tuned(asked.model, base, tuned, run.index, seed=asked.seed, trainable=True)
    model = load_base(asked.model, base, run.index, seed=asked.seed)
    tokens = new_token_ids(run.encoder.tokenizer, run.index)
    return with_adapter(model, asked.model, tokens, seed=asked.seed) if asked.model.library.use_peft else model


def main() -> int:
    """Both sides in turn; the gate, the rates and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--pairs", type=int, default=5)
    args, rest = parser.parse_known_args()
    run = open_run(args.run, parse_overrides(rest))
    with tempfile.TemporaryDirectory() as folder:
        ours, rival = (Case(run, kind, Path(folder)) for kind in (Rollouts, ByGenerate))
        same = np.mean(
            [sorted(a) == sorted(b) for a, b in zip(ours.roll_out().tolist(), rival.roll_out().tolist(), strict=True)]
        )
        each, items = ours.config.num_generations, len(ours.inputs)
        label = f"{run.asked.recipe.name}, {items // each} prompts x {each} items"
        if not same >= 0.99:
            say(f"{label}: GATE FAILED: {same:.1%} of the groups hold the same items")
            return 1
        for name, one, other in (("rollouts", ours.roll_out, rival.roll_out), ("steps", ours.step, rival.step)):
            mine, theirs, ratio = side_by_side(one, other, args.pairs)
            say(f"{name}, {label}: {items / mine:,.0f} items/s, generate {items / theirs:,.0f}; {claim(ratio)}")
    say(
        f"{same:.1%} of the groups hold the same items; {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
