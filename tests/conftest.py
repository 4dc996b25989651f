"""Fixtures: tiny logs, tiny checkpoints, and the public data sets where they are present."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from tests.hub import TOKEN, Hub, running

os.environ.setdefault("OMP_NUM_THREADS", "2")
if (
    "PYTEST_XDIST_WORKER_COUNT" in os.environ
):  # processes that share cores and have a thread a core each wait for each other
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))
threadpool_limits(int(os.environ["OMP_NUM_THREADS"]), user_api="blas")  # NumPy's, which is loaded already
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Not the cache of whoever runs the tests; kept between runs, as text vectors take a minute to make.
os.environ.setdefault("RECTUNE_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "rectune"))

settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=40, database=None)
settings.load_profile("repeatable")

DATA = Path(os.environ.get("RECTUNE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def data_set(name: str) -> Path:
    """A public data set kept beside the repository, or a skip with the reason."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the public data set {name} is not here (looked in {DATA}; set RECTUNE_TEST_DATA)")
    return path


@pytest.fixture
def data() -> Any:
    return data_set


@pytest.fixture
def tiny_log() -> Any:
    """Three users, five items: u0 a b c d, u1 b c e, u2 a c d b e, one event an hour."""
    from rectune.log.cleaning import make_log

    sequences = {"u0": "abcd", "u1": "bce", "u2": "acdbe"}
    rows = [(u, i, 3600.0 * n, 1.0 + n % 5) for u, s in sequences.items() for n, i in enumerate(s)]
    events = pl.DataFrame(rows, schema=["user", "item", "time", "rating"], orient="row")
    items = pl.DataFrame(
        {
            "item_id": list("abcde"),
            "title": ["Apple", "Bread", "Cheese", "Dates", "Egg"],
            "brand": ["", "B", "C", "D", "E"],
        }
    )
    return make_log(events, items, source="tiny", warn_unordered=False)


CHAT = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TEXTS = [
    "Which item comes next? A customer picked these, oldest first: Liked Disliked Yes No " * 3,
    "Apple Bread Cheese",
]


def save_checkpoint(folder: Path, *, tied: bool, chat: bool = False, family: str = "qwen3", **fields: Any) -> Path:
    """Write a tiny random checkpoint with its tokenizer, as the Hub would hold it."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    from rectune.model.new_tokens import train_tokenizer

    tokenizer = train_tokenizer(TEXTS, 400)
    if chat:
        tokenizer.chat_template = CHAT
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    config = AutoConfig.for_model(
        family, **{**sizes, **fields}, vocab_size=len(tokenizer) + 5, tie_word_embeddings=tied,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    set_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny checkpoints: 'tied', 'untied', 'chat'."""
    place = tmp_path_factory.mktemp("checkpoints")
    return {
        "tied": save_checkpoint(place / "tied", tied=True),
        "untied": save_checkpoint(place / "untied", tied=False),
        "chat": save_checkpoint(place / "chat", tied=True, chat=True),
    }


@pytest.fixture
def small_shop() -> Any:
    """A synthetic log of 80 users and 120 items."""
    from rectune.data_builders.synthetic import synthetic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return synthetic(users=80, items=120, categories=6, longest=12, shortest=6, seed=3)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


QUICK = """
include: quickstart.yaml
data: {users: 60, items: 90, categories: 5, shortest: 6, longest: 12}
split: {max_history: 10}
vectors: [{call: sentences, text: [categories, brand, title]}]
index: {levels: 2, codes: 8}
model:
  from_scratch: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2, head_dim: 16}
stages:
  - call: sft
    completion_only_loss: false
    max_steps: 12
    per_device_train_batch_size: 8
    learning_rate: 1.0e-2
    max_length: 128
    logging_steps: 2
    eval_strategy: steps
    eval_steps: 4
    save_strategy: steps
    save_steps: 4
    ranked_rows: 20
    load_best_model_at_end: true
    metric_for_best_model: eval_ndcg@10
    greater_is_better: true
rank: {batch_tokens: 1024, beams: 10, k: 5}
eval: {k: [1, 5], shuffled_rows: 20}
"""


@pytest.fixture
def quick_recipe(tmp_path: Path) -> Path:
    """The quickstart in seconds."""
    file = tmp_path / "quick.yaml"
    file.write_text(QUICK + f"output_dir: {tmp_path / 'run'}\n")
    return file


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe and its finished run folder, shared by the tests that only read or add to it."""
    from tests.runs import train

    place = tmp_path_factory.mktemp("finished")
    (place / "quick.yaml").write_text(QUICK + f"output_dir: {place / 'run'}\n")
    train(place / "quick.yaml")
    return place / "quick.yaml", place / "run"


RATED = """
include: tallrec-ml-100k-cpu.yaml
data: {call: table, path: log.csv, time: time, rating: rating, items_path: items.csv}
split: {call: leave_one_out, max_history: 3}
model:
  from_scratch: {n_embd: 16, n_layer: 1, n_head: 2, n_positions: 64}
stages:
  - call: sft
    max_steps: 4
    per_device_train_batch_size: 8
    learning_rate: 1.0e-2
    max_length: 64
rank: {max_length: 64}
eval: {bootstrap_samples: 20, examples: 2}
"""


@pytest.fixture
def rated_recipe(tmp_path: Path) -> Path:
    """A Yes/No recipe in seconds, beside its log: 12 users, 10 items `i0` … `i9`, 8 ratings from 1 to 5 each."""
    events = [
        (f"u{u}", f"i{(u * 3 + n * 7) % 10}", 100 * n + u, 1 + (u + n * n) % 5) for u in range(12) for n in range(8)
    ]
    pl.DataFrame(events, schema=["user", "item", "time", "rating"], orient="row").write_csv(tmp_path / "log.csv")
    (tmp_path / "items.csv").write_text("item,title\n" + "\n".join(f"i{n},Film {n}" for n in range(10)))
    file = tmp_path / "rated.yaml"
    file.write_text(RATED + f"output_dir: {tmp_path / 'run'}\n")
    return file


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub that huggingface_hub talks to in this process."""
    import huggingface_hub.constants as constants
    from huggingface_hub import hf_api
    from transformers.utils import hub as of_transformers

    with running() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(hf_api.api, "endpoint", found.url)  # made when it is imported
        monkeypatch.setattr(of_transformers, "_hf_api", None)  # made when it is first asked
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found
