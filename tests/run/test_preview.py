"""`rectune preview` uses what a run folder holds and builds the rest elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rectune.recipe.calls import Call
from rectune.recipe.load import load_recipe
from rectune.run.preview import preview
from rectune.run.run import open_recipe


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
