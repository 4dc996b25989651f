"""Vectors of item texts by the words they share: TF-IDF and a truncated SVD, without any model."""

from __future__ import annotations

import numpy as np

from rectune.log.split import Split
from rectune.vectors.item_vectors import ItemVectors
from rectune.vectors.texts import item_texts, of_items


def tfidf(split: Split, *, text: list[str], dimensions: int = 128, ngrams: int = 1, seed: int = 0) -> ItemVectors:
    """Embed item texts by their words, in a second and without weights: TF-IDF (sublinear), then a truncated SVD; norm 1.

    `text`: item columns, joined in this order. At most `dimensions` columns; `ngrams`: words that stand together, up to so many. Source:
    Deerwester et al., JASIS 1990 (latent semantic analysis); scikit-learn's TfidfVectorizer and TruncatedSVD.
    Raises ValueError where no text holds a word.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    if dimensions < 1 or ngrams < 1:
        raise ValueError(f"`vectors`: `dimensions` and `ngrams` must be at least 1, got {dimensions} and {ngrams}.")
    texts = item_texts(split.log.items, text)
    try:
        counts = TfidfVectorizer(
            sublinear_tf=True, ngram_range=(1, ngrams), token_pattern=r"(?u)\b\w+\b"
        ).fit_transform(texts)
    except ValueError:
        raise ValueError(f"`vectors`: no item has a word in {', '.join(f'`{name}`' for name in text)}.") from None
    size = min(dimensions, counts.shape[0] - 1, counts.shape[1] - 1)
    values = TruncatedSVD(size, random_state=seed).fit_transform(counts) if size >= 1 else counts.toarray()
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return of_items(split, np.asarray(values / np.where(norm > 0, norm, 1.0), dtype=np.float32))
