"""Runs for the tests of `rectune export`, and the code of a README run as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from rectune.cli import main
from tests.runs import forked

ALONE = "import sys\nassert not {'rectune', 'peft'} & set(sys.modules)\nsys.modules['rectune'] = sys.modules['peft'] = None\n"
SHORT = {"call": "sft", "max_steps": 4, "learning_rate": 0.01, "per_device_train_batch_size": 8, "max_length": 512}  # fmt: skip
SHOP: dict[str, Any] = {
    "data": {"call": "synthetic", "users": 30, "items": 40, "categories": 5, "shortest": 6, "longest": 8},
    "split": {"call": "leave_one_out", "max_history": 6},
    "index": {"call": "atomic"},
    "tasks": [{"call": "next_item", "template": "next-item.jinja"}],
    "stages": [SHORT],
    "rank": {"template": "next-item.jinja", "beams": 6, "k": 5, "scores": "full"},
    "eval": {"call": "ranking", "k": [5], "shuffled_rows": 0, "wording_rows": 0, "examples": 1},
}  # fmt: skip
NAMES = "next-item-names.jinja"
GPT2 = {"from_scratch": {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 512}, "text_vocab_size": 300}  # fmt: skip
T5 = {"from_scratch": {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "dropout_rate": 0.0}, "text_vocab_size": 300}  # fmt: skip
LORA = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.0}


def tune(place: Path, settings: dict[str, Any]) -> Path:
    """Run a recipe; returns the run folder."""
    (place / "shop.yaml").write_text(yaml.safe_dump({**settings, "output_dir": str(place / "run")}))
    assert main(["train", str(place / "shop.yaml"), "--traceback"]) == 0
    return place / "run"


def exported(run: Path, *more: str) -> Path:
    """Export a run; returns the folder."""
    assert main(["export", str(run), *more, "--traceback"]) == 0
    return Path(more[1]) if more else run / "export"


def card_code(folder: Path) -> str:
    """The Python block of a README that needs no rectune; the one before it needs it."""
    _, block = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def by_the_card(folder: Path, asked: str) -> Any:
    """The value of a Python expression after the README's code ran in the folder, without rectune and peft."""
    code = ALONE + card_code(folder) + f"\nprint('ASKED' + json.dumps({asked}))\n"
    out = forked("-c", code, folder=folder, libraries="transformers")
    assert out.returncode == 0, out.stderr[-3000:]
    assert "rectune" not in out.stderr
    return json.loads(out.stdout.rpartition("ASKED")[2])


def listed_by_the_card(folder: Path, histories: list[list[str]], k: int = 5) -> list[list[list[Any]]]:
    """For each history the [item id, score] pairs of the README's code."""
    return by_the_card(  # type: ignore[no-any-return]
        folder, f"[[(item['item_id'], score) for item, score in recommend(it, h, {k})] for h in {histories!r}]"
    )


def listed_by_the_run(run: Path, histories: list[list[str]], k: int = 5) -> list[list[list[Any]]]:
    """The same of a run, or of a bundle."""
    from rectune import Recommender

    lists = Recommender.from_pretrained(run).recommend(histories, k)
    return [[[item.item_id, item.score] for item in items] for items in lists]


def same_lists(ours: list[list[list[Any]]], theirs: list[list[list[Any]]], *, within: float = 1e-5) -> None:
    """Fail unless the items are the same in the same order, and scores within a tolerance."""
    assert [[item for item, _ in row] for row in ours] == [[item for item, _ in row] for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        assert len(row) > 0
        for (_, score), (_, other_score) in zip(row, other, strict=True):
            assert abs(score - other_score) < within + 1e-6 * abs(score)  # of float32 sums
