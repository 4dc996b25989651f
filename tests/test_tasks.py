"""Tasks: rows, variables and texts of LC-Rec's six families on a log of four items, and the writers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.encoder import Encoder
from rectune.examples import Mixture, TaskSpec
from rectune.indexing.item_index import ItemIndex, from_levels
from rectune.log import make_log
from rectune.new_tokens import add_tokens, train_tokenizer
from rectune.recipe import bundled
from rectune.split import Split, leave_one_out
from rectune.tasks import (
    index_to_item,
    item_to_index,
    next_description,
    next_item,
    next_item_from_titles,
    next_title,
)
from rectune.template import load_template
from rectune.text_tasks import item_search, preference
from rectune.writers import causal_model as causal
from rectune.writers.extractive import extractive
from tests.conftest import save_checkpoint

TEMPLATES = bundled("templates")[0]
ITEMS = pl.DataFrame(
    [
        ("a", "Green Tea", "Leaf", "Drinks, Tea", "Green tea, organic organic, smoky."),
        ("b", "Teapot", "Leaf", "Kitchen, Pots", "Porcelain, smoky."),
        ("c", "Kettle", "", "Kitchen, Kettle", ""),
        ("d", "Mystery", "", "", ""),
    ],
    schema=["item_id", "title", "brand", "categories", "description"],
    orient="row",
)
A, B, C, D = range(4)
EXTRACTIVE = {"call": "rectune.writers.extractive:extractive"}


def split_of(items: pl.DataFrame = ITEMS) -> Split:
    """Events 0-3 are u0: a b c d, events 4-7 u1: b a d c, events 8-12 u2: a c b d a; the last two of each are held out."""
    sequences = {"u0": "abcd", "u1": "badc", "u2": "acbda"}
    rows = [(user, item) for user, sequence in sequences.items() for item in sequence]
    events = pl.DataFrame(rows, schema=["user", "item"], orient="row")
    return leave_one_out(make_log(events, items, source="tea shop"))


def index() -> ItemIndex:
    return from_levels(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.int32))


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
    assert made.notes == {"writer": "rectune.writers.extractive:extractive", "rows_without_text": 2}


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
        ({"call": "rectune.writers.extractive:extracting"}, "Did you mean `extractive`"),
        ({**EXTRACTIVE, "word": 3}, r"`writer.word`: unknown key. Did you mean `words`"),
        ({**EXTRACTIVE, "words": "3"}, r"`writer.words`: got '3'"),
        ({"call": "rectune.writers.causal_model:causal_model"}, r"`writer.model`: the key is missing"),
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


# -------------------------------------------------------------------------------------------------- extractive


def test_an_intention_never_holds_the_title() -> None:
    said = extractive(ITEMS, [[A], [B], [C], [D]], kind="intention")
    assert said == [
        "Drinks, Tea, Leaf, organic, smoky",  # not `green`, not `tea`: words of the title
        "Kitchen, Pots, Leaf, porcelain, smoky",
        "Kitchen",  # not its category `Kettle`, which is its title
        "",
    ]
    joined = pl.DataFrame({"item_id": ["x"], "title": ["Tea, Leaf"], "brand": ["Leaf"], "categories": ["Tea"]})
    assert extractive(joined, [[0]], kind="intention") == [""]


def test_a_preference_sums_the_history_up() -> None:
    # idf = ln(5 / (1 + df)) + 1: 1.916 for one description, 1.511 for `smoky` in two; each description has norm 1.
    # a: organic 2 * 1.916 / 4.931 = 0.777, smoky 0.306; b: porcelain 1.916 / 2.440 = 0.785, smoky 0.619; smoky 0.925.
    said = extractive(ITEMS, [[A, B], [A], [A, B, A], [D]], kind="preference", words=2)
    assert said == [
        "Kinds: Kitchen, Pots, Drinks. Brands: Leaf. Features: smoky, porcelain.",
        "Kinds: Drinks, Tea. Brands: Leaf. Features: organic, green.",
        "Kinds: Drinks, Tea, Kitchen. Brands: Leaf. Features: organic, smoky.",
        "",
    ]


def test_genres_stand_in_for_categories() -> None:
    films = pl.DataFrame({"item_id": ["x"], "title": ["Brazil"], "genres": ["Comedy, Sci-Fi"]})
    assert extractive(films, [[0]], kind="intention") == ["Comedy, Sci-Fi"]


def test_descriptions_of_nothing_but_common_words_are_no_error() -> None:
    dull = ITEMS.with_columns(description=pl.lit("It is the 1"))
    assert extractive(dull, [[A]], kind="intention") == ["Drinks, Tea, Leaf"]


# ------------------------------------------------------------------------------------------------ causal model

ALL = [[A], [B], [C], [D]]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ask(model: Path, asked: Any = ALL, **keys: Any) -> list[str]:
    return causal.causal_model(ITEMS, asked, model=str(model), **{"kind": "intention", "max_new_tokens": 6, **keys})


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_a_model_writes_what_it_generates_alone_and_greedily(cached: Path, tmp_path: Path, chat: bool) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_checkpoint(tmp_path / "model", tied=False, chat=chat)
    said = ask(folder, batch_size=4)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    encoder = Encoder(tokenizer, ())
    assert encoder.form == ("chat" if chat else "plain")
    template = load_template(TEMPLATES / "write-intention.jinja")
    for (item,), text in zip(ALL, said, strict=True):
        texts = {k: v for k, v in ITEMS.row(item, named=True).items() if k != "item_id"}
        ids = encoder.prompt_ids(template.prompt(0, {"item": texts}))
        written: list[int] = []
        while len(written) < 6:
            with torch.no_grad():
                number = int(model(torch.tensor([ids + written])).logits[0, -1].argmax())
            if number in (encoder.end_id, tokenizer.eos_token_id):
                break
            written.append(number)
        assert text == tokenizer.decode(written, skip_special_tokens=True).strip()
    assert any(said)


def test_a_checkpoints_generation_settings_are_not_used(cached: Path, checkpoints: Any, tmp_path: Path) -> None:
    said = ask(checkpoints["tied"])
    poisoned = shutil.copytree(checkpoints["tied"], tmp_path / "poisoned")
    settings = {
        "do_sample": True,
        "temperature": 9.0,
        "repetition_penalty": 5.0,
        "suppress_tokens": list(range(5, 250)),
    }
    (poisoned / "generation_config.json").write_text(json.dumps({**settings, "max_length": 3}))
    assert ask(poisoned) == said


def test_a_text_is_written_once(cached: Path, checkpoints: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ask(checkpoints["tied"], [[A], [B], [A]])
    assert said[0] == said[2]
    monkeypatch.setattr(causal, "_load_model", lambda *_: pytest.fail("the model was loaded again"))
    assert ask(checkpoints["tied"], [[B], [A]]) == [said[1], said[0]]


def test_another_model_or_length_writes_anew(cached: Path, checkpoints: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal, "_generate", lambda model, encoder, ids, most: [f"{most}"] * len(ids))
    assert ask(checkpoints["tied"]) == ["6"] * 4
    assert ask(checkpoints["tied"], max_new_tokens=7) == ["7"] * 4
    monkeypatch.setattr(causal, "_generate", lambda model, encoder, ids, most: ["other"] * len(ids))
    assert ask(checkpoints["untied"]) == ["other"] * 4
    assert ask(checkpoints["tied"]) == ["6"] * 4


def test_a_killed_run_loses_at_most_a_batch(cached: Path, checkpoints: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generate, sizes = causal._generate, []

    def dying(model: Any, encoder: Any, ids: list[list[int]], most: int) -> list[str]:
        sizes.append(len(ids))
        if len(sizes) == 2:
            raise KeyboardInterrupt
        return generate(model, encoder, ids, most)

    monkeypatch.setattr(causal, "_generate", dying)
    with pytest.raises(KeyboardInterrupt):
        ask(checkpoints["tied"], batch_size=3)
    ask(checkpoints["tied"], batch_size=3)
    assert sizes == [3, 1, 1]


def test_a_history_too_long_for_the_prompt_loses_its_oldest(cached: Path, checkpoints: Any) -> None:
    encoder = Encoder(causal._load_tokenizer(str(checkpoints["tied"])), ())
    template = load_template(TEMPLATES / "write-preference.jinja")
    (whole,) = causal._prompts(encoder, template, ITEMS, [[A, B, C]], "preference", 4000)
    (cut,) = causal._prompts(encoder, template, ITEMS, [[A, B, C]], "preference", len(whole) - 1)
    assert len(cut) < len(whole)
    assert "- Teapot, by Leaf (Kitchen, Pots)\n- Kettle (Kitchen, Kettle)\n" in encoder.tokenizer.decode(cut)
    assert "Green Tea" not in encoder.tokenizer.decode(cut)


def test_the_model_writer_serves_both_tasks(cached: Path, checkpoints: Any) -> None:
    writer = {
        "call": "rectune.writers.causal_model:causal_model", "model": str(checkpoints["tied"]), "max_new_tokens": 6,
    }  # fmt: skip
    assert preference(split_of(), index(), "train", writer=writer).notes["writer"] == writer["call"]
    assert len(item_search(split_of(), index(), "train", writer=writer)) > 0


@pytest.mark.parametrize("keep", ["nothing", "tokenizer"])
def test_a_model_that_cannot_be_loaded_names_its_key(cached: Path, checkpoints: Any, tmp_path: Path, keep: str) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    if keep == "tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
            shutil.copy(checkpoints["tied"] / name, folder / name)
    with pytest.raises(FileNotFoundError, match=r"`writer.model`: no .* could be loaded from"):
        ask(folder)
