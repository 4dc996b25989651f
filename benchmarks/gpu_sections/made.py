"""Made-up bases and shops: the shapes of real models with random weights, where quality is not the figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from rectune.indexing.item_index import ItemIndex, from_levels
from rectune.log.cleaning import make_log
from rectune.log.log import Log
from rectune.log.split import Split

QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "max_position_embeddings": 40_960,
}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"model_type": "qwen3", "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True},
    "Qwen2.5-0.5B": {"model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "Qwen3-0.6B": {**QWEN3, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, "tie_word_embeddings": True},
    "Qwen3-1.7B": {**QWEN3, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16, "tie_word_embeddings": True},
    "Qwen3-8B": {**QWEN3, "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32, "tie_word_embeddings": False},
}  # fmt: skip


def config_of(shape: str) -> Any:
    """The transformers config of a shape, in bfloat16."""
    from transformers import AutoConfig

    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return AutoConfig.for_model(**SHAPES[shape], **ids, dtype=torch.bfloat16)


def random_model(
    shape: str, device: str, *, dtype: torch.dtype = torch.bfloat16, quantisation: Any = None, seed: int = 0
) -> Any:
    """A model of that shape with random weights, made on the device itself, in eval mode; in 4 bits by `quantisation`.

    Matrices are normal with deviation .02 as transformers starts them, norms are one, biases zero.
    """
    from transformers.initialization import no_init_weights
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config = config_of(shape)
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"), no_init_weights():
        skeleton = kind(config)
    generator = torch.Generator(device).manual_seed(seed)
    weights = {}
    for name, parameter in skeleton.named_parameters():
        value = torch.empty(parameter.shape, dtype=dtype, device=device)
        if parameter.dim() > 1:
            value.normal_(0.0, 0.02, generator=generator)
        else:
            value.fill_(0.0 if name.endswith("bias") else 1.0)
        weights[name] = value
    given = {} if quantisation is None else {"quantization_config": quantisation}
    model = kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype, device_map={"": device}, **given)
    if config.tie_word_embeddings:  # loading from a mapping leaves the output matrix as one of its own
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.eval()


def write_tokenizer(folder: Path) -> None:
    """A small tokenizer of English prompts, and the config of no model: what a base is beside its weights."""
    from rectune.model.new_tokens import train_tokenizer
    from rectune.recipe.load import bundled

    texts = [file.read_text() for place in bundled("templates") for file in sorted(place.glob("*.jinja"))]
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer(texts, 1000).save_pretrained(folder)


def write_base(shape: str, folder: Path, device: str, *, weights: bool) -> Path:
    """A base folder as the Hub would hold it: tokenizer and config, with random weights or without any."""
    write_tokenizer(folder)
    if weights:
        random_model(shape, device).save_pretrained(folder)
    else:
        config_of(shape).save_pretrained(folder)
    return folder


def write_recipe(file: Path, **settings: Any) -> Path:
    """Write a recipe of the sections that are given; JSON is YAML."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=1))
    return file


def trainable(run: Any, model: Any, new_tokens: list[int], *, number: int = 0) -> Any:
    """What a training of a run trains with, by default the first, the model given; no validation rows are ranked."""
    from rectune.decoding.rollouts import Rollouts
    from rectune.methods.contract import Trainable

    training, rank = run.asked.trainings[number], run.asked.rank
    pad = int(run.encoder.tokenizer.pad_token_id)
    specs = run.specs(training.tasks)
    return Trainable(
        lambda: model, run.split, run.index, run.encoder, specs, new_tokens, 0, True, lambda model, rows: {},
        lambda model, rows, shelf, **more: run.models["tuned"].rank(rows, shelf, **more),
        lambda: Rollouts(run["trie"], pad=pad, scores=rank.scores, batch_tokens=rank.batch_tokens),
        held={name: run[name] for name in training.needs},
    )  # fmt: skip


def every_trainer_with(callback: Any) -> Any:
    """Within it, every Trainer that is made gets the callback: our own method takes none."""
    import contextlib
    from collections.abc import Iterator

    from transformers import Trainer

    before = Trainer.__init__

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            before(self, *args, **kwargs)
            self.add_callback(callback)

        Trainer.__init__ = init
        try:
            yield
        finally:
            Trainer.__init__ = before

    return patched()


# ---------------------------------------------------------------------------- what recipes of the benchmark name by `call`


def shop(*, users: int, items: int, shortest: int, longest: int, seed: int = 0) -> Log:
    """A log of random picks: each user has `shortest` to `longest` events, drawn so that short ones are the rule."""
    rng = np.random.default_rng(seed)
    lengths = shortest + np.minimum(
        rng.geometric(min(1.0, 3.0 / (longest - shortest + 1)), users) - 1, longest - shortest
    )
    user = np.repeat(np.arange(users), lengths)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    step = np.arange(len(user)) - starts
    stride = rng.integers(1, max(2, items // (longest + 1)), users)
    item = (rng.integers(0, items, users)[user] + step * stride[user]) % items  # nothing is taken twice
    events = pl.DataFrame(
        {"user": [f"u{n}" for n in user], "item": [f"i{n}" for n in item], "time": step.astype(np.float64)}
    )
    catalogue = pl.DataFrame({"item_id": [f"i{n}" for n in range(items)], "title": [f"Item {n}" for n in range(items)]})
    return make_log(events, catalogue, source="made up", warn_unordered=False)


def random_ids(split: Split, *, levels: int = 4, codes: int = 256, seed: int = 0) -> ItemIndex:
    """Distinct random semantic ids of `levels` codes for every item."""
    rng = np.random.default_rng(seed)
    items = split.log.n_items
    drawn = np.unique(rng.integers(0, codes, (2 * items + 64, levels)), axis=0)
    rng.shuffle(drawn)
    if len(drawn) < items:
        raise ValueError(f"{codes}^{levels} names are too few for {items} items. Raise `levels` or `codes`.")
    return from_levels(drawn[:items].astype(np.int32))


MADE_BY = "benchmarks.gpu_sections.made"


# ------------------------------------------------------------------ small files in public formats, where no data set is given


def write_movielens(folder: Path, *, users: int = 40, films: int = 60, events: int = 16) -> Path:
    """A folder of MovieLens 100K's form with random ratings."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for user in range(users):
        for n, film in enumerate(rng.choice(films, events, replace=False)):
            lines.append(f"{user + 1}\t{film + 1}\t{rng.integers(1, 6)}\t{1000 * n + user}")
    (folder / "u.data").write_text("\n".join(lines))
    (folder / "u.genre").write_text("unknown|0\nDrama|1\n")
    said = [f"{film + 1}|Film {film + 1} (1995)|01-Jan-1995||x|0|1" for film in range(films)]
    (folder / "u.item").write_text("\n".join(said), encoding="latin-1")
    return folder


def write_lc_rec(folder: Path, *, users: int = 60, items: int = 80) -> Path:
    """A folder of LC-Rec's form with random sequences and titles of two words."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    sequences = {str(user): rng.choice(items, rng.integers(5, 12), replace=False).tolist() for user in range(users)}
    words = "red blue small large steel oak glass lamp chair pump valve filter".split()
    texts = {
        str(i): {
            "title": f"{words[i % 12]} {words[(i * 5 + i // 12) % 12]} {i}",
            "brand": "B",
            "categories": "C",
            "description": "D.",
        }
        for i in range(items)
    }
    (folder / "Made.inter.json").write_text(json.dumps(sequences))
    (folder / "Made.item.json").write_text(json.dumps(texts))
    return folder


def write_chat_base(folder: Path, device: str) -> Path:
    """A tiny chat model with random weights."""
    from transformers import AutoTokenizer

    write_base("tiny", folder, device, weights=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder
