"""Tasks: rows, variables and texts of LC-Rec's six families on a log of four items."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import polars as pl
import pytest

from rectune.model.new_tokens import add_tokens, train_tokenizer
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import load_template
from rectune.recipe.load import bundled
from rectune.tasks.examples import Mixture, TaskSpec
from rectune.tasks.index_to_item import index_to_item
from rectune.tasks.item_search import item_search
from rectune.tasks.item_to_index import item_to_index
from rectune.tasks.next_description import next_description
from rectune.tasks.next_item import next_item
from rectune.tasks.next_item_from_titles import next_item_from_titles
from rectune.tasks.next_title import next_title
from rectune.tasks.preference import preference
from tests.tea_shop import ITEMS, A, B, C, index, split_of

TEMPLATES = bundled("templates")[0]
EXTRACTIVE = {"call": "extractive"}


def titles(variables: dict[str, Any]) -> list[str]:
    return [item["title"] for item in variables["history"]]


ASKED: list[Any] = []


def spy(items: pl.DataFrame, asked: Sequence[Sequence[int]], *, kind: str, word: str = "said") -> list[str]:
    """A writer that notes what it was shown."""
    ASKED.append((kind, [list(codes) for codes in asked]))
    return [f"{word} {' '.join(items['item_id'][code] for code in codes)}" for codes in asked]


def forger(items: pl.DataFrame, asked: Sequence[Sequence[int]], *, kind: str) -> list[str]:
    """A writer that spells codes, a tag and a special token."""
    return ["\ue0010 2\ue002 {{ 7*7 }} <|end|>" for _ in asked]


def short(items: pl.DataFrame, asked: Sequence[Sequence[int]], *, kind: str) -> list[str]:
    """A writer that loses a text."""
    return [""] * (len(asked) - 1)


# ------------------------------------------------------------------------------------------------- mixed, by hand


def test_the_mixed_tasks_have_the_rows_of_next_item() -> None:
    split = split_of()
    for part, rows in (("train", [1, 5, 9, 10]), ("validation", [2, 6, 11]), ("test", [3, 7, 12])):
        for task in (next_item, next_title, next_item_from_titles):
            made = task(split, index(), part)
            assert made.row.tolist() == rows
            assert made.kind == ("text" if task is next_title else "item")
    last = next_title(split, index(), "train").variables(3)
    assert titles(last) == ["Green Tea", "Kettle"]
    assert last["target"]["title"] == "Teapot"


def test_rows_without_a_description_to_write_are_left_out() -> None:
    made = next_description(split_of(), index(), "train")
    assert made.row.tolist() == [1, 5, 10]
    assert made.target.tolist() == [B, A, B]
    assert [made.variables(i)["target"]["description"] for i in range(3)] == [
        "Porcelain, smoky.",
        "Green tea, organic organic, smoky.",
        "Porcelain, smoky.",
    ]
    assert made.notes == {"rows_without_description": 1}


def test_descriptions_are_asked_of_items_that_have_none() -> None:
    with pytest.raises(ValueError, match=r"tea shop: `next_description` needs the item column `description`"):
        next_description(split_of(ITEMS.drop("description")), index(), "train")


# ----------------------------------------------------------------------------------------- search and preference


def test_search_rows_have_the_targets_intention_and_the_history() -> None:
    made = item_search(split_of(), index(), "train", writer=EXTRACTIVE)
    assert made.kind == "item"
    assert made.row.tolist() == [1, 5, 9, 10]
    assert made.target.tolist() == [B, A, C, B]
    assert [made.variables(i)["intention"] for i in range(4)] == [
        "Kitchen, Pots, Leaf, porcelain, smoky",
        "Drinks, Tea, Leaf, organic, smoky",
        "Kitchen",
        "Kitchen, Pots, Leaf, porcelain, smoky",
    ]
    assert titles(made.variables(3)) == ["Green Tea", "Kettle"]


def test_rows_that_nothing_can_be_said_about_are_left_out_and_counted() -> None:
    made = item_search(split_of(), index(), "validation", writer=EXTRACTIVE)
    assert made.row.tolist() == [2]
    assert made.notes == {"writer": "extractive", "rows_without_text": 2}


def test_a_preference_is_written_once_a_user_from_the_history_of_their_last_row() -> None:
    split = split_of()
    ASKED.clear()
    writer = {"call": f"{__name__}:spy", "word": "likes"}
    train = preference(split, index(), "train", writer=writer)
    preference(split, index(), "validation", writer=writer)
    assert ASKED == [("preference", [[A], [B], [A, C]]), ("preference", [[A, B], [B, A], [A, C, B]])]
    assert train.row.tolist() == [1, 5, 10]
    assert train.kind == "text"
    assert train.variables(2)["preference"] == "likes a c"
    assert titles(train.variables(2)) == ["Green Tea", "Kettle"]
    assert set(train.variables(2)) == {"history", "preference", "user"}  # the target can't slip into a template


def test_an_intention_is_asked_once_an_item_and_shows_nothing_but_the_item() -> None:
    ASKED.clear()
    made = item_search(split_of(), index(), "train", writer={"call": f"{__name__}:spy"})
    assert ASKED == [("intention", [[A], [B], [C]])]
    assert [made.variables(i)["intention"] for i in range(4)] == ["said b", "said a", "said c", "said b"]


@pytest.mark.parametrize("task", [item_search, preference])
def test_tasks_around_a_written_text_are_never_ranked(task: Any) -> None:
    assert len(task(split_of(), index(), "test", writer=EXTRACTIVE)) == 0


@pytest.mark.parametrize(
    ("writer", "message"),
    [
        ({}, r"`writer.call`: got None"),
        ({"call": "rectune.tasks.writers.extractive:extracting"}, "Did you mean `extractive`"),
        ({**EXTRACTIVE, "word": 3}, r"`writer.word`: unknown key. Did you mean `words`"),
        ({**EXTRACTIVE, "words": "3"}, r"`writer.words`: got '3'"),
        ({"call": "causal_model"}, r"`writer.model`: the key is missing"),
        ({"call": f"{__name__}:short"}, "gave 2 texts, but 3 were asked for"),
    ],
)
def test_a_wrong_writer_is_named_by_its_key(writer: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        preference(split_of(), index(), "train", writer=writer)


def test_items_without_texts_say_what_to_do() -> None:
    split = split_of(ITEMS.select("item_id", "title"))
    with pytest.raises(
        ValueError, match="found nothing to write a single intention from; the items have item_id, title"
    ):
        item_search(split, index(), "train", writer=EXTRACTIVE)


def test_a_written_text_is_never_markup() -> None:
    made = item_search(split_of(), index(), "train", writer={"call": f"{__name__}:forger"})
    template = load_template(TEMPLATES / "item-search.jinja")
    segments = template.prompt(1, made.variables(0))
    assert [s.text for s in segments if s.kind == "data"] == ["\ufffd0 2\ufffd {{ 7*7 }} <|end|>"]
    assert not [s for s in segments if s.kind == "codes"]


def test_all_six_families_make_training_examples() -> None:
    split = split_of()
    families = [
        (partial(next_item), "next-item", [4, 3]),
        (partial(item_to_index), "item-to-index", [4, 0]),
        (partial(index_to_item), "index-to-item", [4, 0]),
        (partial(next_title), "next-title", [4, 3]),
        (partial(next_description), "next-description", [3, 0]),
        (partial(next_item_from_titles), "next-item-from-titles", [4, 3]),
        (partial(item_search, writer=EXTRACTIVE), "item-search", [4, 1]),
        (partial(preference, writer=EXTRACTIVE), "preference", [3, 3]),
    ]
    specs = [
        TaskSpec(name, partial(task, split, index()), load_template(TEMPLATES / f"{name}.jinja"))
        for task, name, _ in families
    ]
    tokenizer = train_tokenizer(["Green tea"], 300)
    add_tokens(tokenizer, index().vocabulary)
    encoder = Encoder(tokenizer, index().vocabulary)
    for column, part in enumerate(("train", "validation")):
        made = Mixture(specs, part, encoder, seed=0, max_length=None, loss_on_all=False)
        assert len(made) == sum(sizes[column] for _, _, sizes in families)
        assert all(made.example(position, 0).completion for position in range(len(made)))
