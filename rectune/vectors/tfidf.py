"""Vectors of item texts by the words they share: TF-IDF and a truncated SVD, without any model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rectune.log.split import Split
from rectune.vectors.item_vectors import Fitted, ItemVectors, Vectors
from rectune.vectors.texts import item_texts, of_items


def tfidf(split: Split, *, text: list[str], dimensions: int = 128, ngrams: int = 1, seed: int = 0) -> ItemVectors:
    """Embed item texts by their words, in a second and without weights: TF-IDF (sublinear), then a truncated SVD; norm 1.

    `text`: item columns, joined in this order. At most `dimensions` columns; `ngrams`: words that stand together, up to so many. Source:
    Deerwester et al., JASIS 1990 (latent semantic analysis); scikit-learn's TfidfVectorizer and TruncatedSVD.
    Raises ValueError where no text holds a word.
    """
    from sklearn.decomposition import TruncatedSVD

    if dimensions < 1 or ngrams < 1:
        raise ValueError(f"`vectors`: `dimensions` and `ngrams` must be at least 1, got {dimensions} and {ngrams}.")
    texts = item_texts(split.log.items, text)
    words = _words(ngrams)
    try:
        counts = words.fit_transform(texts)
    except ValueError:
        raise ValueError(f"`vectors`: no item has a word in {', '.join(f'`{name}`' for name in text)}.") from None
    size = min(dimensions, counts.shape[0] - 1, counts.shape[1] - 1)
    learned = {"words": np.array(words.get_feature_names_out(), dtype=str), "idf": words.idf_}
    if size >= 1:
        reduced = TruncatedSVD(size, random_state=seed)
        values = reduced.fit_transform(counts)
        learned["directions"] = reduced.components_
    else:
        values = counts.toarray()
    return replace(of_items(split, _of_norm_1(values)), fitted=(learned,))


def of_new(split: Split, fitted: Fitted, *, text: list[str], ngrams: int = 1, **_: Any) -> ItemVectors:
    """Vectors of later items among the directions that the catalogue gave; words that it has not count for nothing."""
    words = _words(ngrams, vocabulary={word: place for place, word in enumerate(fitted["words"].tolist())})
    words.idf_ = fitted["idf"]
    counts = words.transform(item_texts(split.log.items, text))
    return of_items(split, _of_norm_1(counts @ fitted["directions"].T if "directions" in fitted else counts.toarray()))


def _words(ngrams: int, **known: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, ngrams), token_pattern=r"(?u)\b\w+\b", **known)


def _of_norm_1(values: Any) -> Vectors:
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(norm > 0, norm, 1.0), dtype=np.float32)
