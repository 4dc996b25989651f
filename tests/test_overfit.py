"""The line learns: 50 items in a fixed order are learnt by heart with every index and both forms of TIGER."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectune.decoding.shelf import Shelf
from rectune.recipe.load import Recipe
from rectune.run.run import open_recipe

ITEMS, USERS, LENGTH = 50, 90, 9
SENTENCES = {"call": "sentences", "text": ["title", "categories"]}
SASREC = {"call": "sasrec", "dimensions": 8, "epochs": 3}
SMALL = {"codes": 16, "levels": 2}
MLP = {"hidden": [32], "epochs": 60}
INDEXES: dict[str, tuple[list[Any] | None, dict[str, Any]]] = {
    "titles": (None, {"call": "titles"}),
    "atomic": (None, {"call": "atomic"}),
    "given": (None, {"call": "given", "path": "names.index.json"}),
    "residual_kmeans": ([SENTENCES], {"call": "residual_kmeans", **SMALL}),
    "balanced_kmeans": ([SENTENCES], {"call": "balanced_kmeans", **SMALL}),
    "rq_vae": ([SENTENCES], {"call": "rq_vae", "dimensions": 8, **SMALL, **MLP, "levels": 3}),
    "letter": ([SENTENCES, SASREC], {"call": "letter", "groups": 4, **SMALL, **MLP}),
    "collaborative": (None, {"call": "collaborative", "clusters": 4, "leaf": 10}),
    "sequential": (None, {"call": "sequential"}),
    "random_numbers": (None, {"call": "random_numbers"}),
    "category_path": (None, {"call": "category_path"}),
    "hybrid": (
        None,
        {"call": "hybrid", "base": {"call": "category_path"}},
    ),
}
SLOW = ("category_path", "random_numbers", "sequential")  # their codes say less about the items
DECODER = {
    "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip
T5 = {"model_type": "t5", "d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}


TITLES_TEMPLATE = """{% set wordings = 1 %}
{% macro prompt(wording, history) %}{% for item in history %}{{ item.name }} > {% endfor %}{% endmacro %}
{% macro completion(wording, target) %}{{ target.name }}{% endmacro %}
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return round_of_items(tmp_path_factory.mktemp("round"))


def round_of_items(place: Path) -> Path:
    """Users who walk along one fixed round of 50 items, from different places."""
    draw = np.random.default_rng(0)
    order = draw.permutation(ITEMS)
    walks = {str(u): [int(order[(u * 7 + step) % ITEMS]) for step in range(LENGTH)] for u in range(USERS)}
    kinds = ("soap", "lamp", "rope", "nail", "glue")
    words = draw.choice(["red", "blue", "tall", "small", "old", "new", "soft", "hard"], (ITEMS, 2))
    items = {
        str(i): {"title": f"{words[i, 0]} {kinds[i % 5]} {words[i, 1]} {i}", "categories": f"Shop,{kinds[i % 5]}"}
        for i in range(ITEMS)
    }
    names = {str(i): [f"<a_{i % 7}>", f"<b_{i // 7}>"] for i in range(ITEMS)}
    (place / "titles.jinja").write_text(TITLES_TEMPLATE)
    for name, value in (("inter", walks), ("item", items), ("index", names)):
        (place / f"names.{name}.json").write_text(json.dumps(value))
    return place


def recall_at_1(
    source: Path, out: Path, index: str, *, encoder: bool = False, user_tokens: int = 0, seed: int = 0
) -> float:
    """Train on the walks and rank the test rows."""
    vectors, call = INDEXES[index]
    windows: dict[str, Any] = {} if encoder or index == "titles" else {"examples": "windows"}
    template = "titles.jinja" if index == "titles" else "next-item-names.jinja"
    template = "next-item-names-user.jinja" if user_tokens else template
    stage: dict[str, Any] = {
        "num_train_epochs": 80 if index in SLOW else 55, "per_device_train_batch_size": 16, "learning_rate": 3.0e-3, "max_length": 160,
        "lr_scheduler_type": "cosine", "warmup_steps": 0.05, "logging_steps": 1000,
    }  # fmt: skip
    if windows:
        stage |= {"call": "sft", "completion_only_loss": False}
    elif encoder:
        stage |= {"call": "seq2seq", "num_train_epochs": 40, "per_device_train_batch_size": 32}
    else:
        stage |= {"call": "sft", "num_train_epochs": 10, "learning_rate": 5.0e-3}
    settings: dict[str, Any] = {
        "data": {"call": "lc_rec", "path": str(source)},
        "split": {"call": "leave_one_out", "max_history": 3 if encoder else 6},
        "vectors": vectors,
        "index": {
            **call,
            "user_tokens": user_tokens,
            **({"path": str(source / call["path"])} if "path" in call else {}),
        },
        "tasks": [{"call": "next_item", "template": template, **windows}],
        "model": {"from_scratch": T5 if encoder else DECODER, "text_vocab_size": 400},
        "stages": [stage],
        "rank": {"template": template, "beams": 5, "k": 1, "scores": "catalogue"},
        "eval": {"call": "ranking"},
        "seed": seed,
        "output_dir": str(out),
    }
    line = open_recipe(Recipe("round", settings, folder=source))
    ranking = line.models["tuned"].rank(line.rows, Shelf())
    return float((ranking.items[:, 0] == line.rows.target).mean())


@pytest.mark.heavy
@pytest.mark.parametrize("index", INDEXES)
def test_a_decoder_learns_a_fixed_order_by_heart(index: str, source: Path, tmp_path: Path) -> None:
    assert recall_at_1(source, tmp_path / "run", index) >= 0.95


@pytest.mark.heavy
@pytest.mark.parametrize("user_tokens", [0, 30])
def test_an_encoder_decoder_learns_a_fixed_order_by_heart(user_tokens: int, source: Path, tmp_path: Path) -> None:
    assert recall_at_1(source, tmp_path / "run", "residual_kmeans", encoder=True, user_tokens=user_tokens) >= 0.95


def margins() -> None:
    """Print what every case reaches with 1, 2 and 4 threads and three seeds; the tests ask for .95.

    python -m tests.test_overfit [CASE …]
    """
    import itertools
    import sys
    import tempfile
    import warnings

    import torch

    warnings.simplefilter("ignore")
    cases = [*INDEXES, "encoder", "encoder with user tokens"]
    for case in sys.argv[1:] or cases:
        found = {}
        for threads, seed in itertools.product((1, 2, 4), (0, 1, 2)):
            torch.set_num_threads(threads)
            with tempfile.TemporaryDirectory() as place:
                source, out = round_of_items(Path(place)), Path(place) / "run"
                kind: dict[str, Any] = (
                    {"encoder": True, "user_tokens": 30 * case.endswith("tokens")} if "encoder" in case else {}
                )
                index = "residual_kmeans" if kind else case
                found[threads, seed] = recall_at_1(source, out, index, seed=seed, **kind)
        low = min(found, key=lambda key: found[key])
        print(f"{case:<26} least {found[low]:.3f} with {low[0]} threads, seed {low[1]}", flush=True)


if __name__ == "__main__":
    margins()
