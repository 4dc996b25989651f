"""`rectune preview` uses what a run folder holds and builds the rest elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Segment
from rectune.recipe.calls import Call
from rectune.recipe.load import load_recipe
from rectune.run.preview import _marked, preview
from rectune.run.run import open_recipe
from tests.prompts.families import FAMILIES, unigram


def test_finished_stages_are_used_and_nothing_is_left(
    quick_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(quick_recipe, [("output_dir", str(tmp_path / "run"))])
    line = open_recipe(recipe)
    with line.folder.lock():
        index = line.place("index")
    held = sorted(path.name for path in (tmp_path / "run" / "stages").iterdir())
    calls: list[Any] = []
    whole = Call.__call__

    def counted(self: Call, *given: Any, **more: Any) -> Any:
        calls.extend([1] * (self.key == "index"))
        return whole(self, *given, **more)

    monkeypatch.setattr(Call, "__call__", counted)
    assert "next_item: " in preview(recipe, examples=1)
    assert calls == []
    assert sorted(path.name for path in (tmp_path / "run" / "stages").iterdir()) == held
    assert index.folder.name in held
    preview(load_recipe(quick_recipe, [("output_dir", str(tmp_path / "other"))]), examples=1)
    assert calls == [1]  # it is not there, so it is built
    assert not (tmp_path / "other").exists()


def test_a_folder_of_something_else_is_no_hindrance(quick_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    recipe = load_recipe(quick_recipe, [("output_dir", str(tmp_path / "mine"))])
    assert "next_item: " in preview(recipe, examples=1)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


class Four:
    """A mixture of one example: a prompt and a completion in words."""

    def __init__(self, encoder: Encoder, prompt: str, completion: str) -> None:
        self.encoder = encoder
        ids = [encoder.prompt_ids([Segment("data", prompt)]), encoder.completion_ids([Segment("data", completion)])]
        self.ids = [*ids[0], *ids[1]]
        self.labels = [-100] * len(ids[0]) + ids[1]

    def locate(self, position: int, epoch: int) -> Any:
        return SimpleNamespace(name="task"), SimpleNamespace(row=[7]), 0

    def example(self, position: int, epoch: int) -> Any:
        return SimpleNamespace(dropped=0, wording=0)

    def features(self, positions: list[int], epoch: int) -> list[dict[str, list[int]]]:
        return [{"input_ids": self.ids, "labels": self.labels} for _ in positions]


WORDS = [
    "红色茶壶",
    "tea 🙂🎧 pot",
    "this — that …",
    "small blue kettle, red lamp",
    "مرحبا naïve café",
    "two\nlines",
    "a, b . c ! d 's",
]


@pytest.mark.parametrize("name", [name for name in FAMILIES if "Unigram" not in name])
@pytest.mark.parametrize("form", ["plain", "chat"])
def test_each_marked_run_is_decoded_whole(name: str, form: str) -> None:
    tokenizer = FAMILIES[name]()
    if form == "chat" and not tokenizer.chat_template:
        return
    encoder = Encoder(tokenizer, (), form=form)  # type: ignore[arg-type]
    for words in WORDS:
        head, text = _marked(Four(encoder, words, words), 0).split("\n", 1)  # type: ignore[arg-type]
        prompt, trained = text.split("⟦")
        assert head == "--- task, row 7, wording 0"
        assert words in prompt
        assert (
            trained.strip().removesuffix("⟧").removesuffix(tokenizer.convert_ids_to_tokens(encoder.end_id)).strip()
            == words
        )
        assert "\ufffd" not in text


def test_words_of_a_unigram_do_not_run_together() -> None:
    encoder = Encoder(unigram(old=False), ())
    assert _marked(Four(encoder, "red lamp and vase", "tall vase"), 0).endswith("red lamp and vase⟦ tall vase</s>⟧")  # type: ignore[arg-type]
    assert "<unk>" in _marked(Four(encoder, "红色茶壶", "red"), 0)  # type: ignore[arg-type]


def test_preview_says_that_it_closes_a_block_of_reasoning(
    checkpoints: dict[str, Path], tmp_path: Path, quick_recipe: Path
) -> None:
    folder = tmp_path / "open-think"
    shutil.copytree(checkpoints["chat"], folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n", "assistant\n<think>\n"))
    keys = [("model.from_scratch", "null"), ("model.model_name_or_path", str(folder))]
    shown = preview(load_recipe(quick_recipe, keys), examples=1)
    assert r"opens a block of reasoning, which is closed, empty, by '\n</think>\n\n'" in shown
    assert "<think>\n\n</think>" in shown
