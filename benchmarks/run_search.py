"""The ranking of a run beside its rivals, in one process: `generate`, and exact lists beside the beam (rows S4 and S10 of the project's scoreboard).

    OMP_NUM_THREADS=1 python -m benchmarks.run_search RUN_FOLDER [--rows 1024] [--brute 500]

Every row has a gate first: where the lists differ, no ratio is printed. See benchmarks/side_by_side.py for how two are measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.side_by_side import claim, say, say_versions, side_by_side
from rectune.decoding.engine import Engine
from rectune.decoding.shelf import Shelf
from rectune.decoding.trie import Trie


@dataclass(frozen=True)
class Sample:
    """Test users of a run spread evenly over its rows, those with short prompts first."""

    line: Any
    ranker: Any
    chosen: np.ndarray
    prompts: list[list[int]]
    hidden: list[list[int]]
    targets: np.ndarray

    @staticmethod
    def of(folder: str, rows: int, overrides: Any = ()) -> Sample:
        """`rows` users of a run folder, ranked by its tuned model."""
        from rectune.log.split import evenly
        from rectune.run.run import open_run

        line = open_run(folder, overrides)
        ranker: Any = line.models["tuned"]
        test = line.split.test
        chosen = evenly(len(test), rows)
        prompts = ranker.prompts(line.rows, chosen)
        order = np.argsort([len(p) for p in prompts], kind="stable")
        chosen = chosen[order]
        hidden = [line.split.seen(test, int(i)).tolist() for i in chosen]
        return Sample(line, ranker, chosen, [prompts[i] for i in order], hidden, line.split.targets(test)[chosen])

    @property
    def search_options(self) -> dict[str, Any]:
        """What the search and its reference are called with for this run."""
        ranker = self.ranker
        end = ranker.encoder.end_id if ranker.template.end else None
        pad = int(ranker.encoder.tokenizer.pad_token_id)
        return {"scores": ranker.settings.scores, "end": end, "pad": pad}

    def rank(self, search: Callable[..., Any], beams: int) -> Any:
        """Lists for all users, seen items hidden, 64 at a time."""
        from rectune.decoding.ranking import Ranking

        parts = [
            search(self.prompts[a : a + 64], beams=beams, shelf=Shelf(hidden=self.hidden[a : a + 64]))
            for a in range(0, len(self.prompts), 64)
        ]
        items, scores, exact = (np.concatenate([getattr(p, n) for p in parts]) for n in ("items", "scores", "exact"))
        return Ranking(self.chosen, items, scores, exact)

    def figures(self, ranking: Any, k: int) -> tuple[float, float, float]:
        """recall@10, ndcg@10 and recall@k of lists."""
        from rectune.baselines.scoring import discounted
        from rectune.decoding.ranking import target_ranks

        place = target_ranks(ranking, self.targets)
        return float((place < 10).mean()), float(discounted(place).mean()), float((place < k).mean())


def s4(folder: str, *, beams: Sequence[int], rows: int, forced: int, pairs: int) -> None:
    """Exact top-K beside the beam on the model of a run, with brute force over its catalogue as the gate."""
    from rectune.log.split import evenly

    sample = Sample.of(folder, rows)
    ranker, trie, chosen, prompts = sample.ranker, sample.ranker.trie, sample.chosen, sample.prompts
    say(
        f"S4 {sample.line.asked.recipe.name}: {trie.n_items:,} items, {len(chosen):,} users, "
        f"{np.mean([*map(len, prompts)]):.0f} prompt tokens"
    )
    few = evenly(len(chosen), forced)
    truth = [brute_force(ranker.model, trie, prompts[i], sample.hidden[i], ranker.settings.scores) for i in few]
    for k in beams:
        engines = {
            e: Engine(ranker.model, trie, **sample.search_options, exact=e, exact_nodes=10**6) for e in (False, True)
        }

        def run(exact: bool, k: int = k, engines: dict[bool, Engine] = engines) -> Any:
            return sample.rank(engines[exact].search, k)

        beam, best = run(False), run(True)
        tokens = [engines[e].counts.prompt + engines[e].counts.codes for e in (False, True)]
        wrong = [int(i) for i, (scores, _) in zip(few, truth, strict=True) if not same_list(best, int(i), scores, k)]
        if wrong or not best.exact.all():
            say(
                f"S4 K={k} GATE FAILED: {len(wrong)} of {len(few)} lists differ from brute force, {best.exact.mean():.1%} proven"
            )
            continue
        one, other, ratio = side_by_side(lambda: run(False), lambda: run(True), pairs)
        needed = [float((prefixes > np.sort(scores)[-k]).sum()) for scores, prefixes in truth]
        least = np.mean([len(prompts[i]) for i in few]) + np.mean(needed)
        say(
            f"S4 K={k}: equal to brute force for {len(few)} of {len(few)} users, all {len(chosen):,} lists proven (beam: "
            f"{beam.exact.mean():.1%} proven, {np.mean([set(a) == set(b) for a, b in zip(beam.items, best.items, strict=True)]):.1%} "
            f"the same items); exact {other:.2f} s, beam {one:.2f} s: {claim(ratio)} the time, {tokens[1] / tokens[0]:.2f}x the "
            f"tokens; at least {least * len(chosen) / tokens[0]:.2f}x: so many prefixes score above the last item"
        )
        for name, ranking in (("beam", beam), ("exact", best)):
            recall, ndcg, deep = sample.figures(ranking, k)
            say(f"   {name:<5} recall@10 {recall:.4f}, ndcg@10 {ndcg:.4f}, recall@{k} {deep:.4f}")


def end_to_end(folder: str, *, rows: int, pairs: int, overrides: Any = ()) -> None:
    """Rank users of a run with the search and with `generate` from a prefilled, repeated cache; metrics are the gate.

    `overrides`: keys of the run, such as `model.dtype` float32: in half precision the last places are a matter of rounding.
    """
    from rectune.decoding.reference import reference_search

    sample = Sample.of(folder, rows, overrides)
    ranker, k = sample.ranker, sample.ranker.settings.beams
    reference = partial(reference_search, ranker.model, ranker.trie, **sample.search_options)

    def run(search: Callable[..., Any]) -> Any:
        return sample.rank(search, k)

    ours, theirs = run(ranker.engine.search), run(reference)
    figures = [sample.figures(ranking, k) for ranking in (ours, theirs)]
    label = f"ranking {sample.line.asked.recipe.name}, {len(sample.chosen):,} users, K={k}, {ranker.settings.scores}"
    if np.abs(np.subtract(figures[0], figures[1])).max() > 1e-4:
        say(f"{label}: GATE FAILED: recall@10, ndcg@10 and recall@{k} are {figures[0]} and {figures[1]}")
        return
    one, other, ratio = side_by_side(lambda: run(ranker.engine.search), lambda: run(reference), pairs)
    same = np.mean([a == b for a, b in zip(ours.items.tolist(), theirs.items.tolist(), strict=True)])
    say(
        f"{label}: same metrics, {same:.1%} of lists alike to the last place; {one:.2f} s against {other:.2f} s: {claim(ratio)}"
    )


def same_list(ranking: Any, row: int, truth: np.ndarray, k: int) -> bool:
    """Whether a list is the best `k` of all scores, equal scores in any order."""
    best = np.sort(truth)[::-1][:k]
    return bool(np.allclose(truth[ranking.items[row]], best, atol=1e-4))


@torch.no_grad()
def brute_force(
    model: Any, trie: Trie, prompt: list[int], hidden: list[int], scores: str
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of every item, -inf for hidden ones, and of every prefix that a search would have to forward.

    The whole trie through stock transformers, a row for each prefix.
    """
    from transformers import DynamicCache

    counts = np.diff(trie.first)
    logp = np.zeros(len(trie.codes))  # of each node, given the one above; a forced one has probability 1 in `catalogue`
    first = model(input_ids=torch.tensor([prompt]), use_cache=True, past_key_values=DynamicCache())
    for depth in range(trie.depth):
        nodes = np.arange(trie.levels[depth], min(trie.levels[depth + 1], len(counts)))
        nodes = nodes[counts[nodes] > (1 if scores == "catalogue" else 0)]
        for start in range(0, len(nodes), 1024):
            part = nodes[start : start + 1024]
            logits = first.logits[:, -1] if depth == 0 else _after(model, first.past_key_values, trie, part, depth)
            for row, node in enumerate(part):
                child = np.arange(trie.first[node], trie.first[node + 1])
                own = logits[row, torch.from_numpy(trie.tokens[depth][trie.codes[child]])].double()
                total = own.logsumexp(0) if scores == "catalogue" else logits[row].double().logsumexp(0)
                logp[child] = (own - total).numpy()
    for level in range(2, trie.depth + 1):  # from one step to the sum of all steps
        nodes = np.arange(trie.levels[level], trie.levels[level + 1])
        logp[nodes] += logp[trie.parent_of(nodes)]
    totals = logp[trie.leaf_of(np.arange(trie.n_items))]
    totals[hidden] = -np.inf
    branching = 1 + np.flatnonzero(counts[1:] > (1 if scores == "catalogue" else 0))
    return totals, logp[branching]


def _after(model: Any, prompt: Any, trie: Trie, nodes: np.ndarray, depth: int) -> torch.Tensor:
    """Logits after the prompt and each prefix, (prefixes, vocabulary)."""
    from transformers import DynamicCache

    columns = []
    for level in range(depth, 0, -1):
        columns.insert(0, trie.tokens[level - 1][trie.codes[nodes]])
        nodes = trie.parent_of(nodes)
    ids, cache = torch.from_numpy(np.column_stack(columns)), DynamicCache()
    for number, layer in enumerate(prompt.layers):
        cache.update(layer.keys.expand(len(ids), -1, -1, -1), layer.values.expand(len(ids), -1, -1, -1), number)
    return torch.as_tensor(model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1])


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--beams", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--pairs", type=int, default=7, help="how often each rival runs")
    parser.add_argument("--rows", type=int, default=1024, help="users of the run")
    parser.add_argument("--brute", type=int, default=50, help="users that S4 checks by brute force (scoreboard: 500)")
    args = parser.parse_args()
    say_versions()
    end_to_end(args.run, rows=args.rows, pairs=max(2, args.pairs // 2))
    s4(args.run, beams=args.beams, rows=args.rows, forced=args.brute, pairs=args.pairs)


if __name__ == "__main__":
    main()
