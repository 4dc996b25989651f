"""Vectors of item texts by the hidden states of a causal language model."""

from __future__ import annotations

from typing import Literal

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
    layer: int = -1,
    pooling: Literal["mean", "last"] = "mean",
    batch_size: int = 16,
    max_length: int = 512,
    dtype: str = "auto",
    device: str = "auto",
) -> ItemVectors:
    """Embed item texts by any causal language model: its last hidden states, averaged over the tokens (LC-Rec, sec. 3.2).

    `text`: item columns, joined in this order, cut to `max_length` tokens. `layer`: the states after so many layers, 0 those of the
    embeddings, or counted from the end: -1 the last ones, behind the model's final norm. `pooling`: 'mean' over the tokens, or the
    'last' token, which alone has seen the whole text. Raises ValueError for a layer that the model does not have.
    """
    texts = item_texts(split.log.items, text)
    maker = f"hidden-states {model_identity(model)} {layer} {pooling} {max_length} {dtype}"
    load = lambda: _pooled(model, layer, pooling, max_length, dtype, batch_size, device)  # noqa: E731
    return of_items(split, embedded(texts, load, maker=maker, batch_size=batch_size))


def _pooled(name: str, layer: int, pooling: str, max_length: int, dtype: str, batch_size: int, device: str) -> Embed:
    import torch
    from transformers import AutoModel, AutoTokenizer

    check_checkpoint(name, key="vectors.model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model = AutoModel.from_pretrained(name, dtype=dtype, trust_remote_code=False).eval()
    except (OSError, ValueError) as error:
        raise not_loaded(name, error) from None
    states = model.config.get_text_config().num_hidden_layers + 1
    if not -states <= layer < states:
        raise ValueError(f"`vectors.layer`: got {layer}, but {name} has layers 0 to {states - 1}, or -{states} to -1.")
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
        out = model(
            **batch, output_hidden_states=layer != -1
        )  # all layers are held only where one of them is asked for
        hidden = (out.last_hidden_state if layer == -1 else out.hidden_states[layer]).float()  # (B, T, width)
        mask = batch["attention_mask"]
        if pooling == "last":
            last = (
                mask.shape[1] - 1 - mask.flip(1).argmax(1)
            )  # the place of the last real token, on whichever side the padding is
            return np.asarray(hidden[torch.arange(len(hidden)), last].cpu().numpy(), dtype=np.float32)
        weights = mask[..., None]
        return np.asarray(((hidden * weights).sum(1) / weights.sum(1)).cpu().numpy(), dtype=np.float32)

    return embed
