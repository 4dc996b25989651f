"""Writers: what the extractive one takes from texts, and what a causal model generates and keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rectune.prompts.encoder import Encoder
from rectune.prompts.template import load_template
from rectune.recipe.load import bundled
from rectune.tasks.item_search import item_search
from rectune.tasks.preference import preference
from rectune.tasks.writers import causal_model as causal
from rectune.tasks.writers.extractive import extractive
from tests.conftest import save_checkpoint
from tests.tea_shop import ITEMS, A, B, C, D, index, split_of

TEMPLATES = bundled("templates")[0]


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
        "call": "causal_model", "model": str(checkpoints["tied"]), "max_new_tokens": 6,
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
