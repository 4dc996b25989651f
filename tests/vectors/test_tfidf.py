"""Vectors by shared words: near where words are shared, the same for a seed, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.vectors.item_vectors import ItemVectors, join
from rectune.vectors.tfidf import of_new, tfidf


def split_of(titles: list[str]) -> Any:
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(len(titles))], "title": titles})
    return SimpleNamespace(log=SimpleNamespace(items=items))


TEAS = [
    "green tea",
    "green tea leaves",
    "black tea",
    "steel kettle",
    "kettle of steel",
    "Чай зелёный",
    "чай чёрный",
    "7 cups",
]


def test_texts_that_share_words_are_near() -> None:
    values = tfidf(split_of(TEAS), text=["title"]).joined()
    near = values @ values.T
    np.testing.assert_allclose(np.diag(near), 1.0, atol=1e-6)
    for one, like, other in ((0, 1, 3), (3, 4, 0), (5, 6, 2)):  # letters of every script count
        assert near[one, like] > near[one, other] + 0.3


def test_the_seed_decides_and_dimensions_are_at_most_what_there_is() -> None:
    one, two = (tfidf(split_of(TEAS), text=["title"], dimensions=3, seed=4).joined() for _ in range(2))
    assert one.shape == (8, 3)
    assert np.array_equal(one, two)
    assert tfidf(split_of(TEAS), text=["title"], dimensions=500).joined().shape[1] <= 7
    assert tfidf(split_of(["only", "two"]), text=["title"]).joined().shape == (2, 1)


def test_words_that_stand_together_count_where_asked() -> None:
    titles = ["green tea", "tea green", "green tea cup", "cup"]
    alone, pairs = (tfidf(split_of(titles), text=["title"], ngrams=n, dimensions=3).joined() for n in (1, 2))
    assert alone[0] @ alone[1] > 0.99
    assert pairs[0] @ pairs[1] < pairs[0] @ pairs[2]


@pytest.mark.parametrize(
    ("titles", "keys", "message"),
    [
        (["!!!", "—"], {}, "no item has a word in `title`"),
        (["a", ""], {}, "item `i1` has no text in `title`"),
        (["a", "b"], {"dimensions": 0}, "must be at least 1, got 0 and 1"),
    ],
)
def test_what_cannot_be_embedded_is_one_line(titles: list[str], keys: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tfidf(split_of(titles), text=["title"], **keys)


def test_later_items_lie_among_the_directions_of_the_catalogue() -> None:
    for dimensions in (3, 500):
        made = tfidf(split_of(TEAS), text=["title"], dimensions=dimensions)
        again = of_new(split_of(TEAS), made.fitted[0], text=["title"], dimensions=dimensions)
        np.testing.assert_allclose(again.joined(), made.joined(), atol=1e-5)
    made = tfidf(split_of(TEAS), text=["title"])
    (kettle, nothing) = of_new(split_of(["a kettle of green steel", "zzz"]), made.fitted[0], text=["title"]).blocks[0]
    near = made.blocks[0] @ kettle
    assert set(near.argsort()[-2:]) == {3, 4}
    assert not nothing.any()  # no word of it is known
    tiny = tfidf(split_of(["tea", "tea"]), text=["title"])  # one word: nothing to reduce
    assert of_new(split_of(["tea"]), tiny.fitted[0], text=["title"]).blocks[0].tolist() == [[1.0]]


def test_what_was_learned_is_kept_with_the_vectors(tmp_path: Path) -> None:
    made = tfidf(split_of(TEAS), text=["title"])
    made.save(tmp_path)
    kept = ItemVectors.load(tmp_path)
    joined = join([kept, ItemVectors(kept.item_ids, (np.ones((8, 2), dtype=np.float32),))])
    assert joined.fitted[0]["words"].tolist() == made.fitted[0]["words"].tolist()
    assert joined.fitted[1] == {}
    assert joined.only([1]).fitted == ({},)
