"""Section 4 (S2): users a second of the constrained search in bfloat16, beside `generate` and as a share of the matrix rate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.decoding import PrefixTree, random_ids
from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.made import SHAPES, random_model
from rectune.decoding.engine import Engine
from rectune.decoding.trie import build_trie

PROMPT, ITEMS, CODES, LEVELS = 256, 10_000, 256, 4
SHARED = 64  # users whose lists both sides make


@dataclass(frozen=True)
class Sizes:
    """What is searched: shapes, beams, batches of users that are tried, users that `generate` ranks at a time."""

    shapes: tuple[str, ...]
    beams: tuple[int, ...]
    batches: tuple[int, ...]
    rival: tuple[int, ...]
    prompt: int
    items: int


FULL = Sizes(("Qwen2.5-0.5B", "Qwen3-1.7B"), (20, 50), (64, 256, 512), (4, 16), PROMPT, ITEMS)
QUICK = Sizes(("tiny",), (4,), (4, 8), (2,), 24, 300)


def run(bench: Bench) -> None:
    """Each shape and beam width in both score modes; the rival once a shape and width."""
    sizes, device = QUICK if bench.quick else FULL, str(bench.card["device"])
    for shape in sizes.shapes:
        rows = [f"{shape}, K={k}, {scores}" for k in sizes.beams for scores in ("full", "catalogue")]
        same = f"{shape}, float32, same lists"
        asked = [*rows, same] if shape == sizes.shapes[0] else rows
        if not any(bench.wants(row, needs=8) for row in asked):
            continue
        if shape == sizes.shapes[0]:
            bench.measure(same, lambda shape=shape: _same_lists(shape, sizes, device), needs=8)
        model = random_model(shape, device)
        for k in sizes.beams:
            for scores in ("full", "catalogue"):
                given = (model, shape, k, scores, sizes, bench.card)
                bench.measure(
                    f"{shape}, K={k}, {scores}", lambda given=given: _row(*given), needs=0 if bench.quick else 9
                )
        del model
        bench.tidy()


def catalogue(sizes: Sizes, vocabulary: int) -> np.ndarray:
    """Names of three random codes and a digit that is always forced, as token ids, (items, 4)."""
    codes = 16 if sizes.items < 1000 else CODES
    names = np.column_stack([random_ids(sizes.items, LEVELS - 1, codes, 0), np.full(sizes.items, (LEVELS - 1) * codes)])
    return names + vocabulary - (LEVELS - 1) * codes - 1


def _row(model: Any, shape: str, k: int, scores: str, sizes: Sizes, card: dict[str, Any]) -> dict[str, Any]:
    names = catalogue(sizes, SHAPES[shape]["vocab_size"])
    trie, rng = build_trie(names, fixed_length=True), np.random.default_rng(1)
    most = max(*sizes.batches, SHARED)
    prompts = rng.integers(5, SHAPES[shape]["vocab_size"] - 2000, (most, sizes.prompt)).tolist()
    engine = Engine(model, trie, scores=scores, end=None, pad=0)  # type: ignore[arg-type]
    speeds: dict[int, float] = {}
    for batch in sizes.batches:
        try:
            speeds[batch] = batch / _seconds(lambda b=batch: engine.search(prompts[:b], beams=k), card)
        except torch.cuda.OutOfMemoryError:  # larger ones will not fit either
            break
    batch = max(speeds, key=lambda b: speeds[b])
    counted = engine.counts.codes
    found = engine.search(prompts[:SHARED], beams=k)
    forwarded = (engine.counts.codes - counted) / SHARED
    row: dict[str, Any] = {
        "users_per_s": speeds[batch], "batch": batch, "by_batch": {str(b): round(s, 1) for b, s in speeds.items()},
        "codes_per_user": forwarded,
    }  # fmt: skip
    limit = card["matrix_tflops"] * 1e12 / (2 * _body(shape) * (sizes.prompt + forwarded))
    row |= {"limit_users_per_s": limit, "share_of_limit": speeds[batch] / limit}
    speed, lists, users = _rival(model, names, prompts, k, scores == "catalogue", sizes, card)
    overlap = [len(set(found.items[i].tolist()) & set(items)) / k for i, items in enumerate(lists)]
    return row | {
        "generate_users_per_s": speed, "generate_batch": users, "ratio": speeds[batch] / speed,
        "overlap_with_generate": statistics.mean(overlap), "lists_compared": len(lists),
        "no_item_twice_or_missing": all(len(set(r.tolist())) == k and (r >= 0).all() for r in found.items),
    }  # fmt: skip


def _rival(
    model: Any,
    names: np.ndarray,
    prompts: list[list[int]],
    k: int,
    renormalise: bool,
    sizes: Sizes,
    card: dict[str, Any],
) -> tuple[float, list[list[int]], int]:
    """Users a second of `generate` with a dictionary trie at its best batch, that batch's lists, and the batch."""
    number = {tuple(name): i for i, name in enumerate(names.tolist())}
    tree = PrefixTree(names, sizes.prompt)
    best, lists, users = 0.0, [], 0
    for batch in sizes.rival:
        asked = torch.tensor(prompts[:batch], device=model.device)
        out: list[Any] = []
        seconds = _seconds(lambda a=asked, o=out: o.append(generate(model, tree, a, k, renormalise)), card, times=2)
        if batch / seconds > best:
            best, users = batch / seconds, batch
        if batch >= len(lists):
            sequences = out[-1].sequences[:, sizes.prompt :].tolist()
            lists = [[number[tuple(s)] for s in sequences[i * k : i * k + k]] for i in range(batch)]
    return best, lists, users


def generate(
    model: Any, tree: PrefixTree, ids: torch.Tensor, beams: int, renormalise: bool, levels: int = LEVELS
) -> Any:
    """transformers' own constrained beam search for prompts of one length, (rows, length)."""
    with torch.no_grad():
        return model.generate(
            ids, attention_mask=torch.ones_like(ids), num_beams=beams, num_return_sequences=beams, max_new_tokens=levels,
            min_new_tokens=levels, do_sample=False, prefix_allowed_tokens_fn=tree, renormalize_logits=renormalise, length_penalty=0.0,
            return_dict_in_generate=True, output_scores=True, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip


def _same_lists(shape: str, sizes: Sizes, device: str) -> dict[str, Any]:
    """The gate: in float32 both make the same ordered lists."""
    model = random_model(shape, device, dtype=torch.float32)
    names = catalogue(sizes, SHAPES[shape]["vocab_size"])
    number = {tuple(name): i for i, name in enumerate(names.tolist())}
    trie, k, users = build_trie(names, fixed_length=True), sizes.beams[0], 2
    prompts = np.random.default_rng(1).integers(5, 1000, (users, sizes.prompt)).tolist()
    tree, off, same = PrefixTree(names, sizes.prompt), 0.0, 0
    for scores in ("full", "catalogue"):
        found = Engine(model, trie, scores=scores, end=None, pad=0).search(prompts, beams=k)  # type: ignore[arg-type]
        out = generate(model, tree, torch.tensor(prompts, device=device), k, scores == "catalogue")
        theirs = [number[tuple(s)] for s in out.sequences[:, sizes.prompt :].tolist()]
        off = max(off, float(np.abs(out.sequences_scores.cpu().numpy() - found.scores.ravel()).max()))
        same += sum(found.items[i].tolist() == theirs[i * k : i * k + k] for i in range(users))
    return {"lists_compared": 2 * users, "lists_equal": same, "largest_score_difference": off}


def _body(shape: str) -> int:
    """Weights of the layers: the parameters that every token goes through, embeddings and head left out."""
    s = SHAPES[shape]
    d, size = s["hidden_size"], s.get("head_dim", s["hidden_size"] // s["num_attention_heads"])
    heads, kv = size * s["num_attention_heads"], size * s["num_key_value_heads"]
    return int(s["num_hidden_layers"] * (2 * d * heads + 2 * d * kv + 3 * d * s["intermediate_size"]))


def _seconds(work: Callable[[], Any], card: dict[str, Any], *, times: int = 3) -> float:
    """Median wall seconds of a call that ends on the host, after one that warms up."""
    found: Sequence[float] = []
    for _ in range(times + 1):
        if card["device"] == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        found = [*found, time.perf_counter() - started]
    return statistics.median(found[1:])
