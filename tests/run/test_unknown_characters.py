"""Characters that a tokenizer does not know: told with their share, kept as its unknown token, named where two items become one."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from rectune.cli import main
from tests.prompts.families import unigram

RECIPE = """
include: quickstart.yaml
data: {call: table, path: log.csv, time: time, items_path: items.csv}
vectors: null
index: {call: titles}
model: {from_scratch: null, model_name_or_path: t5}
tasks: [{call: next_item, template: next-item.jinja}]
stages: [{call: seq2seq, max_steps: 2, max_length: 400}]
rank: {k: 2, template: next-item.jinja, beams: 8}
eval: {oracle: null, k: [1]}
output_dir: run
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A T5 with random weights, a log of eight items, and a recipe, in the working folder."""
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = unigram(old=False)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    events = [(f"u{u}", f"i{(u * 3 + n * 5) % 8}", 100 * n + u) for u in range(9) for n in range(5)]
    pl.DataFrame(events, schema=["user", "item", "time"], orient="row").write_csv(tmp_path / "log.csv")
    (tmp_path / "r.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def titled(place: Path, *titles: str) -> None:
    rest = [f"lamp {'abcdefgh'[i]}" for i in range(len(titles), 8)]
    pl.DataFrame({"item": [f"i{i}" for i in range(8)], "title": [*titles, *rest]}).write_csv(place / "items.csv")


def test_two_items_of_one_name_are_told_by_their_ids_and_titles(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    titled(shop, "red lamp", "红色茶壶", "tall vase", "绿色茶壶")
    assert main(["train", "r.yaml"]) == 1
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith("error: items `i1` ('红色茶壶') and `i3` ('绿色茶壶') tokenise to the same name")


@pytest.mark.parametrize("command", ["preview", "train"])
def test_the_share_of_unknown_characters_is_told(shop: Path, command: str) -> None:
    titled(shop, "red lamp 茶茶茶茶茶", "tall vase", "{}")
    with pytest.warns(
        UserWarning, match=r"the tokenizer does not know \d\d?\.\d\d% of the characters .* letters, such as .*茶"
    ):
        assert main([command, "r.yaml"]) == 0


def test_a_tokenizer_that_knows_every_character_is_silent(quick_recipe: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert main(["preview", str(quick_recipe)]) == 0
    assert not [warning for warning in recwarn if "does not know" in str(warning.message)]
