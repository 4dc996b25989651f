"""Rows as S-DPO's files have them, made up: users walk through 24 bands, and each row offers five of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

BANDS = [
    f"{a} {b}" for a in ("Red", "Blue", "Loud", "Slow", "Old", "New") for b in ("Apples", "Rivers", "Stones", "Kings")
]


def rows_of(users: int, seed: int, longest: int = 6) -> list[dict[str, Any]]:
    """Three rows a user: the history grows by the target before, cut to ten."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(users):
        walk = [BANDS[int(i)] for i in rng.permutation(len(BANDS))[:longest]]
        for end in range(3, longest):
            others = [band for band in BANDS if band not in walk]
            offered = [walk[end], *(others[int(i)] for i in rng.permutation(len(others))[:4])]
            rows.append(
                {
                    "historyList": "::".join(walk[:end][-10:]),
                    "itemList": [offered[int(i)] for i in rng.permutation(5)],
                    "trueSelection": walk[end],
                }
            )
    return rows


def files(folder: Path, *, train: bool = True) -> Path:
    """The three files, or without the one for training the two that are published."""
    folder.mkdir(exist_ok=True)
    for n, part in enumerate((*(("train",) * train), "val", "test")):
        (folder / f"bands-{part}.json").write_text(json.dumps(rows_of(12, n)))
    return folder


RECIPE = """
data: {{call: sdpo, path: {path}}}
split: {{call: given, max_history: 10}}
index: {{call: titles}}
tasks: [{{call: choose_item, template: choose-item.jinja}}]
model:
  from_scratch: {{model_type: gpt2, n_embd: 32, n_layer: 1, n_head: 2, n_positions: 512}}
  text_vocab_size: 400
stages:
  - call: sft
    max_steps: 6
    per_device_train_batch_size: 8
    learning_rate: 1.0e-2
    max_length: 400
    eval_strategy: steps
    eval_steps: 3
    ranked_rows: 10
  - call: s_dpo
    negatives: candidates
    negatives_each: 3
    beta: 0.5
    max_steps: 2
    per_device_train_batch_size: 4
    learning_rate: 1.0e-3
    max_length: 400
rank: {{template: choose-item.jinja, beams: 5, k: 3, scores: catalogue, prior: {{call: prior, weight: [0, 7]}}}}
eval: {{call: choices, k: [1, 3], free_rows: 7, free_tokens: 6, wording_rows: 4, examples: 2}}
output_dir: {out}
"""
