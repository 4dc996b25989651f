"""A writer without a model: words taken from the items' own texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

WORD = r"(?u)\b[^\W\d_]{3,}\b"  # three letters or more, no digits
KINDS = ("categories", "genres")  # where a catalogue says of what kind an item is, the first one that is there


@dataclass(frozen=True)
class ItemWords:
    """What can be said of one item. `kinds`: its last two categories; `telling`: TF-IDF weight of its words."""

    title: str
    kinds: list[str]
    brand: str
    telling: dict[str, float]


def extractive(
    items: pl.DataFrame, asked: Sequence[Sequence[int]], *, kind: Literal["intention", "preference"], words: int = 5
) -> list[str]:
    """Write an intention or a preference out of the items' categories (or genres), brands and descriptions.

    A plain stand-in for what a language model would write from reviews. An intention is a search such as 'Drinks, Tea,
    Leaf, organic, smoky' and never holds the item's title, nor a word of the title out of the description; a preference
    is 'Kinds: Tea, Cups. Brands: Leaf. Features: organic, smoky.' with at most 3 kinds and 2 brands, the most frequent
    in the history, of equal ones the latest. `words`: how many words of descriptions, those with the highest TF-IDF
    in the catalogue. '' where an item has none of these texts.
    """
    known = _item_words(items)
    if kind == "intention":
        return [_intention(known[item], words) for (item,) in asked]
    return [_preference([known[item] for item in history], words) for history in asked]


def _item_words(items: pl.DataFrame) -> list[ItemWords]:
    kinds = next((_column(items, name) for name in KINDS if name in items.columns), [""] * items.height)
    telling = _telling_words(_column(items, "description"))
    rows = zip(_column(items, "title"), kinds, _column(items, "brand"), telling, strict=True)
    return [ItemWords(title, _parts(kind)[-2:], brand, words) for title, kind, brand, words in rows]


def _column(items: pl.DataFrame, name: str) -> list[str]:
    return items[name].to_list() if name in items.columns else [""] * items.height


def _parts(categories: str) -> list[str]:
    return [part for part in map(str.strip, categories.split(",")) if part]


def _telling_words(texts: list[str], *, most: int = 40) -> list[dict[str, float]]:
    """For each text its `most` words of highest TF-IDF (scikit-learn's, English stop words left out) and their weights."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    analyse = TfidfVectorizer(token_pattern=WORD, stop_words="english").build_analyzer()
    documents = [analyse(text) for text in texts]
    if not any(documents):
        return [{} for _ in texts]
    vectorizer = TfidfVectorizer(analyzer=list)
    weights = vectorizer.fit_transform(documents)  # (items, words), sparse
    vocabulary = vectorizer.get_feature_names_out()
    out = []
    for row in range(len(texts)):
        span = slice(weights.indptr[row], weights.indptr[row + 1])
        found = dict(zip(vocabulary[weights.indices[span]], weights.data[span].astype(np.float64), strict=True))
        out.append({word: float(found[word]) for word in _best(found, most)})
    return out


def _best(weights: dict[str, float], most: int) -> list[str]:
    """The words of highest weight; equal ones by the alphabet. Rounded, so that the last bit decides nothing."""
    return sorted(weights, key=lambda word: (-round(weights[word], 9), word))[:most]


def _intention(item: ItemWords, words: int) -> str:
    title = item.title.casefold()
    own = set(re.findall(WORD, title))
    telling = _best({word: weight for word, weight in item.telling.items() if word not in own}, words)
    parts = [part for part in (*item.kinds, item.brand, *telling) if part and title not in part.casefold()]
    text = ", ".join(dict.fromkeys(parts))
    return "" if title in text.casefold() else text


def _preference(history: list[ItemWords], words: int) -> str:
    latest = history[::-1]  # Counter keeps the order of first sight among equal counts
    total: Counter[str] = Counter()
    for item in history:
        total.update(item.telling)  # type: ignore[arg-type]  # a Counter adds weights as it adds counts
    groups = {
        "Kinds": _frequent((kind for item in latest for kind in item.kinds), 3),
        "Brands": _frequent((item.brand for item in latest), 2),
        "Features": _best(total, words),  # type: ignore[arg-type]
    }
    return " ".join(f"{name}: {', '.join(found)}." for name, found in groups.items() if found)


def _frequent(values: Iterable[str], most: int) -> list[str]:
    return [value for value, _ in Counter(filter(None, values)).most_common(most)]
