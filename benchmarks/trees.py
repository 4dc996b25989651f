"""One pass over all training targets of some users, forward and backward, in each form that their examples can have.

    python -m benchmarks.trees RECIPE [--users 256] [--batch 32] [--pairs 7] [--template next-item.jinja] [--KEY VALUE …]

The rivals: one example a target, padded in random order and grouped by length (what transformers' Trainer does), and TRL's packing (`pack_dataset`
and its collator without padding, with the head that its SFTTrainer puts on this device). Beside them `packing` and `examples: tree`, and `windows`, which is another
objective. All have the same weights (a Llama of 384 units and 4 layers, random). A form whose summed loss or whose gradients differ from those of the examples one
by one by more than 1e-4 prints no ratio. Seconds are those of the process's CPU on one thread; rendering and batching are in them.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoConfig, AutoModelForCausalLM
from trl.data_utils import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head

from benchmarks.side_by_side import claim, interval, say
from rectune.cli import parse_overrides
from rectune.log.split import windows
from rectune.methods.target_head import put_target_head
from rectune.methods.token_batches import TokenBatches
from rectune.methods.token_tree import TreeCollator
from rectune.methods.training import ByGroup
from rectune.prompts.template import load_template
from rectune.recipe.load import load_recipe
from rectune.run.run import Run, open_recipe
from rectune.tasks.examples import Mixture, TaskSpec
from rectune.tasks.next_item import next_item

Batches = Callable[[], Iterator[dict[str, torch.Tensor]]]


class Case:
    """Some users of a recipe's log, and the ways to read them."""

    def __init__(self, run: Run, *, users: int, batch: int, template: str) -> None:
        self.run, self.batch = run, batch
        split = run.split
        long = np.flatnonzero(np.bincount(split.train.user, minlength=split.log.n_users) > 0)
        chosen = np.sort(np.random.default_rng(0).choice(long, min(users, len(long)), replace=False))
        some = replace(split, train=split.train.take(np.isin(split.train.user, chosen)))
        self.examples = self._mixture(next_item(some, run.index, "train", examples="tree"), template, on_all=False)
        longest = int((split.train.stop - split.train.start).max())
        flat = windows(split, length=longest)
        rows = next_item(split, run.index, "train", examples="windows").take(np.flatnonzero(np.isin(flat.user, chosen)))
        self.flat = self._mixture(rows, "next-item-names.jinja", on_all=True)
        self.pad = int(run.encoder.tokenizer.pad_token_id or 0)

    def _mixture(self, rows: Any, template: str, *, on_all: bool) -> Mixture:
        spec = TaskSpec("next_item", lambda part: rows, load_template(Path("templates") / template))
        return Mixture([spec], "train", self.run.encoder, seed=0, max_length=1024, loss_on_all=on_all)

    def model(self) -> Any:
        """The same random weights whenever it is asked for."""
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            "llama", vocab_size=len(self.run.encoder.tokenizer), hidden_size=384, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=6,
            num_key_value_heads=6, max_position_embeddings=1024, pad_token_id=self.pad, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        return AutoModelForCausalLM.from_config(config).train()

    def _batched(self, order: list[int], examples: Mixture, collate: Any) -> Iterator[dict[str, torch.Tensor]]:
        for at in range(0, len(order), self.batch):
            yield collate(examples.grouped_features(order[at : at + self.batch], 0))

    def padded(self) -> Iterator[dict[str, torch.Tensor]]:
        """A target an example, in random order."""
        order = np.random.default_rng(0).permutation(len(self.examples)).tolist()
        return self._batched(order, self.examples, DataCollatorForLanguageModeling(self.pad))

    def _by_length(self, examples: Mixture) -> list[int]:
        return np.argsort(-examples.lengths(0), kind="stable").tolist()

    def grouped(self) -> Iterator[dict[str, torch.Tensor]]:
        """A target an example, the long ones first."""
        return self._batched(self._by_length(self.examples), self.examples, DataCollatorForLanguageModeling(self.pad))

    def by_tokens(self) -> Iterator[dict[str, torch.Tensor]]:
        """`batch_tokens`: as many tokens a batch as the longest of those grouped by length has."""
        budget = self.batch * int(self.examples.lengths(0).max())
        for some in TokenBatches(self.examples, budget, trees=False).plan(0):
            yield DataCollatorForLanguageModeling(self.pad)(self.examples.features(some.tolist(), 0))

    def their_packing(self) -> Iterator[dict[str, torch.Tensor]]:
        """TRL's rows of 1,024 tokens, one at a time: its collator puts all of a batch into one sequence, which costs attention its square."""
        rows = self.examples.features(range(len(self.examples)), 0)
        collate = DataCollatorForLanguageModeling(self.pad, padding_free=True)
        for row in pack_dataset(Dataset.from_list(rows), 1024):
            yield collate([row])

    def our_packing(self) -> Iterator[dict[str, torch.Tensor]]:
        """`packing: true`, in random order."""
        alone = TreeCollator(self.pad, None)
        order = np.random.default_rng(0).permutation(len(self.examples)).tolist()
        return self._batched(order, self.examples, lambda batch: alone([{**one, "group": -1} for one in batch]))

    def tree(self) -> Iterator[dict[str, torch.Tensor]]:
        """`examples: tree`, groups of like length together."""
        order = list(ByGroup(self.examples, self.batch, seed=0, by_length=True))
        return self._batched(order, self.examples, TreeCollator(self.pad, None))

    def windows(self) -> Iterator[dict[str, torch.Tensor]]:
        """A sequence a user, the loss on every item of it."""
        return self._batched(self._by_length(self.flat), self.flat, DataCollatorForLanguageModeling(self.pad))


def once(model: Any, batches: Batches) -> tuple[float, float, int]:
    """CPU seconds of a pass, the summed loss, tokens that were forwarded; gradients are left in the model."""
    model.zero_grad()
    start, total, tokens = time.process_time(), 0.0, 0
    for batch in batches():
        tokens += batch["input_ids"].numel()
        loss = -model(**batch, fused_lm_head=True, use_cache=False).log_probs.sum()
        loss.backward()
        total += float(loss.detach())
    return time.process_time() - start, total, tokens


def away(model: Any, other: Any) -> float:
    """The norm of the difference of two models' gradients over that of the second's."""
    pairs = [(p.grad.double(), q.grad.double()) for p, q in zip(model.parameters(), other.parameters(), strict=True)]
    return float(
        np.sqrt(sum(float((a - b).square().sum()) for a, b in pairs) / sum(float(b.square().sum()) for _, b in pairs))
    )


def compare(case: Case, *, pairs: int) -> None:
    """Time the forms in turn and print a row of each."""
    model = case.model()
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    theirs, ours = model, copy.deepcopy(model)
    put_target_head(ours)
    forms: dict[str, tuple[Any, Batches]] = {
        "a target an example, padded": (ours, case.padded), "a target an example, by length": (ours, case.grouped),
        "a target an example, `batch_tokens`": (ours, case.by_tokens),
        "TRL's packing and head": (theirs, case.their_packing), "TRL's packing, our head": (ours, case.their_packing),
        "`packing: true`": (ours, case.our_packing), "`examples: tree`": (ours, case.tree), "`examples: windows`": (ours, case.windows),
    }  # fmt: skip
    base = "a target an example, by length"
    once(ours, case.grouped)
    truth = copy.deepcopy(ours)
    for ourselves, kept in zip(ours.parameters(), truth.parameters(), strict=True):
        kept.grad = ourselves.grad
    _, summed, _ = once(copy.deepcopy(ours), case.grouped)
    taken: dict[str, list[float]] = {name: [] for name in forms}
    tokens, fine = {}, {}
    for _ in range(pairs):
        for name, (which, batches) in forms.items():
            seconds, total, tokens[name] = once(which, batches)
            taken[name].append(seconds)
            print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
            off = max(abs(total / summed - 1), away(which, truth))
            fine[name] = name == "`examples: windows`" or off <= 1e-4
            if not fine[name]:
                say(f"{name}: GATE FAILED: loss {total} against {summed}, off by {off:.2g}")
    say(f"\n{len(case.examples):,} targets, {len(case.flat):,} windows, batches of {case.batch} examples\n")
    say(
        "| form | tokens forwarded | CPU s | against by length | against TRL's packing and head |\n|---|---|---|---|---|"
    )
    for name, all_seconds in taken.items():
        row = [name, f"{tokens[name]:,}", f"{np.median(all_seconds):.2f}"]
        for rival in (base, "TRL's packing and head"):
            ratio = interval(np.array(taken[rival]) / np.array(all_seconds))
            row.append("" if rival == name or not (fine[name] and fine[rival]) else claim(ratio))
        say("| " + " | ".join(row) + " |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--template", default="next-item.jinja")
    args, rest = parser.parse_known_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    run = open_recipe(load_recipe(args.recipe, parse_overrides(rest)))
    say(f"{platform.machine()}, torch {torch.__version__}, one thread, {args.recipe}, {args.template}")
    compare(Case(run, users=args.users, batch=args.batch, template=args.template), pairs=args.pairs)


if __name__ == "__main__":
    main()
