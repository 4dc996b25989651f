"""Section 5 (S9): the evaluation of 24,772 users, from histories to metrics, beside one `generate` a user."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.decoding import PrefixTree
from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.made import MADE_BY, random_model, write_base, write_recipe
from benchmarks.gpu_sections.search import LEVELS, generate

USERS, ITEMS = 24_772, 9_922  # those of Amazon 2018 Musical Instruments
WIDE = 65_536  # tokens in memory at a time; 8,192 is the default of `rank.batch_tokens`


def run(bench: Bench) -> None:
    """Prompts, ranking with seen items hidden, and metrics, at K = 20; the rival on as many users as fit."""
    shape = "tiny" if bench.quick else "Qwen2.5-0.5B"
    users, items = (60, 200) if bench.quick else (USERS, ITEMS)
    prompts, rival = "prompts on the host", "one `generate` a user"
    ways = [(scores, tokens) for scores, tokens in (("catalogue", WIDE), ("full", WIDE), ("catalogue", 8192))]
    named = {f"ranking and metrics, {scores}, {tokens:,} tokens at a time": (scores, tokens) for scores, tokens in ways}
    if not any(bench.wants(row) for row in (prompts, *named, rival)):
        return
    with tempfile.TemporaryDirectory() as place:
        line = _line(Path(place), shape, users, items, bench)
        from rectune.methods.language_model import as_ranker

        ranker = as_ranker(line.loading, random_model(shape, str(bench.card["device"])))
        needs = 0 if bench.quick else 15
        bench.measure(prompts, lambda: _prompts(line, ranker), needs=needs)
        for row, way in list(named.items())[:1]:
            bench.measure(row, lambda way=way: _ranked(line, ranker, *way), needs=needs)
        bench.measure(rival, lambda: _rival(line, ranker, 4 if bench.quick else 40), needs=needs)
        for row, way in list(named.items())[1:]:
            bench.measure(row, lambda way=way: _ranked(line, ranker, *way), needs=needs)


def _line(place: Path, shape: str, users: int, items: int, bench: Bench) -> Any:
    from rectune.recipe.load import load_recipe
    from rectune.run.asked import ask
    from rectune.run.run import Run

    device = str(bench.card["device"])
    recipe = write_recipe(
        place / "whole.yaml",
        data={"call": f"{MADE_BY}:shop", "users": users, "items": items, "shortest": 5, "longest": 15},
        split={"call": "leave_one_out", "max_history": 20},
        index={"call": f"{MADE_BY}:random_ids", "levels": LEVELS, "codes": 16 if bench.quick else 256},
        tasks=[{"call": "next_item", "template": "next-item.jinja"}],
        model={
            "model_name_or_path": str(write_base(shape, place / "base", device, weights=False)), "dtype": "bfloat16",
            "device": device,
        },
        stages=[{"call": "sft", "max_length": 512}],
        rank={"template": "next-item.jinja", "beams": 4 if bench.quick else 20, "k": 4, "max_length": 500},
        eval={"call": "ranking", "k": [1]},
        seed=0,
        output_dir=str(place / "run"),
    )  # fmt: skip
    return Run(ask(load_recipe(recipe), need="no files"))  # its base has no weights


def _prompts(line: Any, ranker: Any) -> dict[str, Any]:
    """Rendering and encoding alone, on a sample."""
    which = np.arange(min(len(line.rows), 2000))
    started = time.perf_counter()
    prompts = ranker.prompts(line.rows, which)
    seconds = time.perf_counter() - started
    return {
        "prompts_per_s": len(which) / seconds, "seconds_of_all": seconds * len(line.rows) / len(which),
        "mean_tokens": float(np.mean([len(p) for p in prompts])),
    }  # fmt: skip


def _ranked(line: Any, ranker: Any, scores: str, batch_tokens: int) -> dict[str, Any]:
    from rectune.decoding.ranking import recall_and_ndcg, target_ranks
    from rectune.decoding.shelf import Shelf

    settings = replace(ranker.settings, scores=scores, batch_tokens=batch_tokens)
    ranker = replace(ranker, settings=settings, progress=False)
    test = line.split.test
    started = time.perf_counter()
    hidden = [line.split.seen(test, i).tolist() for i in range(len(test))]
    ranking = ranker.rank(line.rows, Shelf(hidden=hidden))
    place = target_ranks(ranking, line.rows.target.astype(np.int32))
    figures = recall_and_ndcg(place, ranker.settings.beams, k=min(10, ranker.settings.beams))
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "users": len(test),
        "users_per_s": len(test) / seconds,
        "exact": float(ranking.exact.mean()),
        **figures,
    }


def _rival(line: Any, ranker: Any, users: int) -> dict[str, Any]:
    """`generate` user by user on a sample spread over the users, its time scaled to all of them; how far the lists agree."""
    from rectune.log.split import evenly

    k = ranker.settings.beams
    which = evenly(len(line.rows), users)
    prompts = ranker.prompts(line.rows, which)
    trie = ranker.trie
    names = np.column_stack([trie.tokens[level][c] for level, c in enumerate(_codes(trie))])
    number = {tuple(name): i for i, name in enumerate(names.tolist())}
    lists, started = [], 0.0
    for n, prompt in enumerate(prompts):
        if n == 1:  # the first one warms up
            _synchronise()
            started = time.perf_counter()
        out = generate(
            ranker.model,
            PrefixTree(names, len(prompt)),
            torch.tensor([prompt], device=ranker.model.device),
            k,
            False,
            trie.depth,
        )
        lists.append([number[tuple(s)] for s in out.sequences[:, len(prompt) :].tolist()])
    _synchronise()
    each = (time.perf_counter() - started) / max(1, len(prompts) - 1)
    ours = ranker.engine.search(prompts, beams=k)
    overlap = [len(set(ours.items[i].tolist()) & set(items)) / k for i, items in enumerate(lists)]
    return {
        "users": len(prompts),
        "s_per_user": each,
        "seconds_of_all": each * len(line.rows),
        "overlap": float(np.mean(overlap)),
    }


def _codes(trie: Any) -> list[np.ndarray]:
    """For each level the code of every item, (items,)."""
    nodes, columns = trie.leaf_of(np.arange(trie.n_items)), []
    for _ in range(trie.depth):
        columns.insert(0, trie.codes[nodes])
        nodes = trie.parent_of(nodes)
    return columns


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
