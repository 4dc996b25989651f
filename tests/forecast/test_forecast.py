"""What is said of a recipe before it is run: bases that are not as they must be, and steps that are counted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rectune.forecast.forecast import _work, forecast
from rectune.recipe.load import load_recipe
from tests.planning.test_need import llama, plan_of


def test_a_config_that_is_not_there_or_not_known_is_one_line(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def planned(folder: Path) -> None:
        model = json.dumps({"model_name_or_path": str(folder), "from_scratch": None})
        forecast(load_recipe("quickstart", [("model", model), ("output_dir", str(tmp_path / "run"))]))

    planned(checkpoints["tied"])
    with pytest.raises(FileNotFoundError, match=r"no config\.json could be read"):
        planned(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen33"}')
    with pytest.raises(ValueError, match=r"model type `qwen33`.*Did you mean `qwen3`"):
        planned(tmp_path)


def test_steps_of_reinforcement_are_counted_in_prompts() -> None:
    config = SimpleNamespace(
        per_device_train_batch_size=8, gradient_accumulation_steps=1, max_steps=-1, num_train_epochs=2, num_iterations=1
    )
    examples: Any = SimpleNamespace(number=28, length=20)
    groups = plan_of(llama(2), head="targets", group=4)
    assert _work(groups, config, examples, 64).steps == 28  # two prompts a step, as a training of these keys made
    assert _work(groups, SimpleNamespace(**{**vars(config), "num_iterations": 3}), examples, 64).steps == 84
    assert _work(plan_of(llama(2), head="targets"), config, examples, 64).steps == 8
