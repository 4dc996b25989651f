"""The decoding engine beside its rivals, in one process, on random models and catalogues: rows S1 and S3 of the project's scoreboard.

    OMP_NUM_THREADS=1 python -m benchmarks.decoding                          # S1 at d512x8 and on a toy, S3; minutes
    OMP_NUM_THREADS=1 python -m benchmarks.decoding --shape qwen2.5-0.5b     # S1 at that shape, random weights

Every row has a gate first: where the lists differ, no ratio is printed. Times are process CPU seconds on one thread,
rivals take turns, a ratio is the median of the ratios of neighbours with a 95 % bootstrap interval. A ratio whose interval
is wider than 10 % is marked: no claim.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.side_by_side import claim, say, say_versions, side_by_side
from rectune.decoding.engine import Engine
from rectune.decoding.select import top
from rectune.decoding.table import Table
from rectune.decoding.trie import Trie, build_trie

SHAPES: dict[str, dict[str, Any]] = {
    "toy": {
        "model_type": "qwen3", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1200,
    },
    "d512x8": {
        "model_type": "qwen3", "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 33_024,
    },
    "qwen2.5-0.5b": {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936,
    },
}  # fmt: skip


def random_model(shape: str) -> Any:
    """A model of that shape with random weights, float32, on the CPU."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    set_seed(0)
    fields = {**SHAPES[shape], "tie_word_embeddings": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields)).eval()


def random_ids(items: int, levels: int, codes: int, first_token: int) -> np.ndarray:
    """Distinct random semantic ids as token ids, (items, levels)."""
    rng = np.random.default_rng(0)
    space = codes**levels
    drawn = np.unique(rng.integers(0, space, int(items * 1.02) + 64)) if space > 2 * items else np.arange(space)
    rng.shuffle(drawn)
    digits = drawn[:items, None] // codes ** np.arange(levels - 1, -1, -1) % codes
    return digits + np.arange(levels) * codes + first_token


# ------------------------------------------------------------------------------------------------- S1: constrained top-K


class PrefixTree:
    """The rival's constraint: a dictionary of dictionaries behind `prefix_allowed_tokens_fn`."""

    def __init__(self, names: np.ndarray, width: int) -> None:
        self.root: dict[int, Any] = {}
        self.width = width
        for name in names.tolist():
            node = self.root
            for token in name:
                node = node.setdefault(token, {})

    def __call__(self, batch: int, ids: torch.Tensor) -> list[int]:
        """Tokens that may come after `ids`."""
        node = self.root
        for token in ids[self.width :].tolist():
            node = node[token]
        return list(node)


def plain_generate(model: Any, tree: PrefixTree, prompt: list[int], beams: int, levels: int, catalogue: bool) -> Any:
    """transformers' own constrained beam search."""
    with torch.no_grad():
        return model.generate(
            torch.tensor([prompt]), num_beams=beams, num_return_sequences=beams, max_new_tokens=levels,
            min_new_tokens=levels, do_sample=False, prefix_allowed_tokens_fn=tree, renormalize_logits=catalogue,
            length_penalty=0.0, return_dict_in_generate=True, output_scores=True, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip


def floor_ratio(shape: str, prompt: int, beams: int, levels: int, forwarded: int) -> float:
    """Arithmetic of `generate` over that of the search (`full` scores): 2 operations a weight and token, and the head."""
    s = SHAPES[shape]
    d, kv = s["hidden_size"], s["num_key_value_heads"] * s.get("head_dim", s["hidden_size"] // s["num_attention_heads"])
    heads = s["num_attention_heads"] * s.get("head_dim", s["hidden_size"] // s["num_attention_heads"])
    body = s["num_hidden_layers"] * (2 * d * heads + 2 * d * kv + 3 * d * s["intermediate_size"])
    head = d * s["vocab_size"]
    theirs = body * beams * (prompt + levels - 1) + head * beams * levels
    return float(theirs / (body * (prompt + forwarded) + head * (1 + forwarded)))


def s1(shape: str, *, prompt: int, beams: Sequence[int], pairs: int) -> None:
    """CPU seconds a user, batch 1, against `generate` with a dictionary trie."""
    model = random_model(shape)
    codes, items = (16, 300) if shape == "toy" else (256, 10_000)
    names = np.column_stack(
        [random_ids(items, 3, codes, 0), np.full(items, 3 * codes)]
    )  # a digit that is always forced
    names += model.config.vocab_size - 3 * codes - 1
    trie, rng = build_trie(names, fixed_length=True), np.random.default_rng(1)
    number = {tuple(name): i for i, name in enumerate(names.tolist())}
    ids = rng.integers(5, model.config.vocab_size, prompt).tolist()
    for k in beams:
        for scores in ("full", "catalogue"):
            engine, tree = Engine(model, trie, scores=scores, end=None, pad=0), PrefixTree(names, prompt)  # type: ignore[arg-type]
            found = engine.search([ids], beams=k)
            forwarded = engine.counts.codes
            out = plain_generate(model, tree, ids, k, 4, scores == "catalogue")
            theirs = [number[tuple(row)] for row in out.sequences[:, prompt:].tolist()]
            off = float(np.abs(out.sequences_scores.numpy() - found.scores[0, : len(theirs)]).max())
            label = f"S1 {shape:<13} P={prompt} K={k:<3} {scores:<9}"
            if theirs != found.items[0].tolist() or off > 1e-4:
                say(f"{label} GATE FAILED: lists differ or scores are off by {off:.2g}")
                continue
            run = lambda e=engine, k=k: e.search([ids], beams=k)  # noqa: E731
            rival = lambda t=tree, k=k, s=scores: plain_generate(model, t, ids, k, 4, s == "catalogue")  # noqa: E731
            ours, other, ratio = side_by_side(run, rival, pairs)
            limit = f"limit {floor_ratio(shape, prompt, k, 4, forwarded):.1f}x" if scores == "full" else ""
            say(
                f"{label} same top-{k}, scores within {off:.1e}; {ours:.4f} s against {other:.4f} s: {claim(ratio)}; "
                f"{prompt} + {forwarded} tokens; {limit}"
            )


# -------------------------------------------------------------------------------------------- S3: the constraint table


class Static:
    """STATIC's algorithm (a transition matrix flattened to rows of equal stride), written from its description.

    The first two levels are looked up densely; below, a state's outgoing edges are gathered from CSR arrays at the
    stride of the widest state. Allowed log-probabilities are scattered over the vocabulary and the best are taken there.
    """

    def __init__(self, names: np.ndarray, vocabulary: int, dense: int = 2) -> None:
        from rectune.decoding.trie import build_trie

        trie = build_trie(names, fixed_length=True)
        self.vocabulary, self.dense, self.trie = vocabulary, dense, trie
        tokens = np.concatenate([np.zeros(1, dtype=np.int64)] + [
            trie.tokens[level][trie.codes[trie.levels[level + 1] : trie.levels[level + 2]]] for level in range(trie.depth)
        ])  # fmt: skip
        self.start = torch.from_numpy(trie.first[:-1].astype(np.int32))
        self.count = torch.from_numpy(np.diff(trie.first).astype(np.int32))
        self.token = torch.from_numpy(tokens.astype(np.int32))
        self.state = torch.arange(len(tokens), dtype=torch.int32)  # the next state of each edge
        self.fan_out = trie.fan_out
        self.table = torch.zeros((int(trie.levels[dense]), vocabulary), dtype=torch.int32)  # states of the dense levels
        for node in range(int(trie.levels[dense])):
            a, b = int(trie.first[node]), int(trie.first[node + 1])
            self.table[node, tokens[a:b]] = torch.arange(a, b, dtype=torch.int32)

    @property
    def sparse_bytes(self) -> int:
        """Pointers, codes and next states of the CSR part."""
        return 4 * (len(self.start) + 1 + len(self.token) + len(self.state))

    def step(
        self, state: torch.Tensor, score: torch.Tensor, logp: torch.Tensor, level: int, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Next states and scores of the best `k`; state, score (B, W), logp (B, W, V)."""
        rows, width, vocabulary = logp.shape
        if level < self.dense:
            following = self.table[state]
        else:
            offset = torch.arange(self.fan_out[level])
            edge = (self.start[state][..., None] + offset).clamp(max=len(self.token) - 1)
            there = offset < self.count[state][..., None]
            token = torch.where(there, self.token[edge], vocabulary).long()
            following = torch.zeros((rows, width, vocabulary + 1), dtype=torch.int32)
            following = following.scatter_(2, token, self.state[edge])[..., :-1]
        masked = torch.where(following > 0, logp, -torch.inf) + score[..., None]
        best, place = masked.view(rows, -1).topk(k, dim=1)
        return following.reshape(rows, -1).gather(1, place), best


def s3(*, items: int, batch: int, beams: int, pairs: int) -> None:
    """Constraint and selection of the widest step; bytes an item; seconds to build."""
    codes, levels = 256, 4
    names = random_ids(items, levels, codes, 0)
    start = time.process_time()
    trie = build_trie(names, fixed_length=True)
    built = time.process_time() - start
    # The items of a trie can be numbered in the order of their names; else a map of 4 bytes an item stays outside the step.
    say(
        f"S3 {items:,} items: {trie.table_bytes / items:.2f} bytes an item (limit 1.3: the entropy of the names), built in "
        f"{built:.2f} CPU s; map from leaf to item: {trie.items.nbytes / items:.0f} bytes an item"
    )
    for vocabulary in (levels * codes, 33_024):  # nothing but codes, the rival's best case; and a language model's
        s3_step(names, trie, vocabulary, batch=batch, beams=beams, pairs=pairs)


def s3_step(names: np.ndarray, trie: Trie, vocabulary: int, *, batch: int, beams: int, pairs: int) -> None:
    """Constraint and selection of the step with the most children, over a vocabulary of that size."""
    rival, table, generator = (
        Static(names, vocabulary),
        Table(trie, torch.device("cpu")),
        torch.Generator().manual_seed(0),
    )
    level = int(np.argmax([min(beams, n) * f for n, f in zip(np.diff(trie.levels[:-1]), trie.fan_out, strict=True)]))
    inner = trie.levels[level + 1] - trie.levels[level]
    node = torch.stack([torch.randperm(int(inner), generator=generator)[:beams].sort().values for _ in range(batch)])
    node += int(trie.levels[level])
    score = -torch.rand(node.shape, generator=generator)
    logp = torch.randn((batch, node.shape[1], vocabulary), generator=generator).log_softmax(-1)
    own = logp[..., table.tokens[level]].contiguous()  # what our head computes; the rival's computes the vocabulary

    def ours() -> tuple[torch.Tensor, torch.Tensor]:
        start, count = table.span(node)
        flat = (table.of_children(own, start, count, trie.fan_out[level]) + score[..., None]).flatten(1)
        places = top(flat, beams)
        wide = trie.fan_out[level]
        return start.gather(1, places // wide) + places % wide, flat.gather(1, places)

    def theirs() -> tuple[torch.Tensor, torch.Tensor]:
        return rival.step(node, score, logp, level, beams)

    (a, x), (b, y) = ours(), theirs()
    label = (
        f"S3 step {level + 1}, batch {batch}, K={beams}, vocabulary {vocabulary:,} (STATIC: "
        f"{rival.sparse_bytes / trie.n_items:.1f} bytes an item, dense levels left out)"
    )
    if not (torch.equal(a, b.long()) and torch.equal(x, y)):
        say(f"{label}: GATE FAILED: survivors differ")
        return
    one, other, ratio = side_by_side(ours, theirs, pairs)
    say(f"{label}: same survivors; {1e3 * one:.2f} ms against {1e3 * other:.2f} ms: {claim(ratio)}")


# ----------------------------------------------------------------------------------------------------------------- main


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES, "none"], default="d512x8", help="the model of S1")
    parser.add_argument("--prompt", type=int, default=256, help="prompt tokens of S1")
    parser.add_argument("--beams", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--pairs", type=int, default=7, help="how often each rival runs")
    parser.add_argument(
        "--items", type=int, default=1_000_000, help="items of S3 (scoreboard: 10000000; 0: leave S3 out)"
    )
    args = parser.parse_args()
    say_versions()
    if args.shape != "none":
        s1("toy", prompt=8, beams=[4], pairs=3 * args.pairs)
        s1(args.shape, prompt=args.prompt, beams=args.beams, pairs=args.pairs)
    if args.items:
        s3(items=args.items, batch=16, beams=50, pairs=4 * args.pairs)


if __name__ == "__main__":
    main()
