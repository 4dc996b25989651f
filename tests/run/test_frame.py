"""The frame of every prompt is rendered when a run's base is made; nothing renders it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rectune.bundle.export import export
from rectune.prompts.template import Segment
from rectune.run.preview import preview
from rectune.run.run import open_run
from tests.conftest import save_checkpoint
from tests.exports import SHOP, SHORT, tune
from tests.prompts.test_encoder import DATED


@pytest.mark.heavy
def test_a_template_that_prints_the_time_asks_every_day_as_it_was_tuned(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = save_checkpoint(tmp_path / "base", tied=True)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = DATED
    tokenizer.save_pretrained(base)
    model = {"model_name_or_path": str(base), "dtype": "float32"}
    folder = tune(tmp_path, {**SHOP, "model": model, "stages": [{**SHORT, "max_steps": 2}]})
    (kept,) = folder.glob("stages/base-*/frame.json")
    frame = json.loads(kept.read_text())
    assert frame["form"] == "chat"
    asked = [open_run(folder).encoder.prompt_ids([Segment("markup", "What next?")]) for _ in range(2)]
    assert asked[0] == asked[1]
    assert open_run(folder).encoder.frame.before == frame["before"]
    place, about = export(folder)
    assert about["prompt"]["before"] == frame["before"]
    assert json.loads((place / "rectune.json").read_text())["prompt"]["before"] == frame["before"]
    text = preview(open_run(folder).asked.recipe, examples=1)
    assert f"around every prompt: {frame['before']!r}" in text
