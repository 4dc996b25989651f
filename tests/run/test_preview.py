"""`rectune preview` uses what a run folder holds and builds the rest elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rectune.recipe.load import load_recipe
from rectune.run.line import Line
from rectune.run.preview import preview


def test_finished_stages_are_used_and_nothing_is_left(
    quick_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(quick_recipe, [("output_dir", str(tmp_path / "run"))])
    line = Line(recipe)
    with line.folder.lock():
        index = line.index_stage
    held = sorted(path.name for path in (tmp_path / "run" / "stages").iterdir())
    calls: list[Any] = []
    whole = Line._index_call.func  # type: ignore[attr-defined]

    def counted(self: Line) -> Any:
        function, arguments = whole(self)

        def built(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return function(*args, **kwargs)

        built.__module__, built.__qualname__ = function.__module__, function.__qualname__
        built.__wrapped__ = function  # type: ignore[attr-defined]
        return built, arguments

    monkeypatch.setattr(Line, "_index_call", property(counted))
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
