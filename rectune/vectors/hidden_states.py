"""Vectors of item texts by the hidden states of a causal language model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rectune.log.split import Split
from rectune.runtime.checkpoints import check_checkpoint
from rectune.runtime.device import device_of
from rectune.vectors.item_vectors import ItemVectors
from rectune.vectors.texts import Embed, embedded, item_texts, model_identity, not_loaded, of_items


def hidden_states(
    split: Split,
    *,
    text: list[str],
    model: str,
    batch_size: int = 16,
    max_length: int = 512,
    dtype: str = "auto",
    device: str = "auto",
) -> ItemVectors:
    """Embed item texts by any causal language model: its last hidden states, averaged over the tokens (LC-Rec, sec. 3.2).

    `text`: item columns, joined in this order, cut to `max_length` tokens.
    """
    texts = item_texts(split.log.items, text)
    maker = f"hidden-states {model_identity(model)} {max_length} {dtype}"
    load = lambda: _mean_pooled(model, max_length, dtype, batch_size, device)  # noqa: E731
    return of_items(split, embedded(texts, load, maker=maker, batch_size=batch_size))


def _mean_pooled(name: str, max_length: int, dtype: str, batch_size: int, device: str) -> Embed:
    import torch
    from transformers import AutoModel, AutoTokenizer

    check_checkpoint(name, key="vectors.model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model = AutoModel.from_pretrained(name, dtype=dtype, trust_remote_code=False).eval()
    except (OSError, ValueError) as error:
        raise not_loaded(name, error) from None
    model.to(device_of(device))
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
