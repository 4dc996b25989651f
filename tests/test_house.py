"""The house: one folder one job, and a folder imports only from the floors below it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up; `rectune` stands for the files of the package's own folder.
FLOORS = (
    "runtime", "log", "baselines", "recipe", "data_builders", "vectors", "indexing", "prompts", "tasks", "model", "decoding",
    "methods", "planning", "run", "forecast", "bundle", "eval", "rectune",
)  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for top in ("rectune", "data_builders", "eval"):
        for file in (ROOT / top).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            parts = parts if parts[0] == "rectune" else ("rectune", *parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(text: str, known: set[str]) -> Iterator[str]:
    """The modules of ours that a file imports, lazily or for types alone too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in inside if name in known)
            if node.module in known and any(name not in known for name in inside):
                yield node.module


def room(module: str) -> str:
    """The folder that a module stands in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "rectune"


def arrows() -> dict[str, set[str]]:
    """Module -> modules that it imports; the version and the place of the package itself don't count."""
    files = modules()
    return {name: set(imports(file.read_text(), set(files))) - {"rectune", name} for name, file in files.items()}


def test_every_folder_is_a_floor() -> None:
    folders = {d.name for d in (ROOT / "rectune").iterdir() if d.is_dir() and d.name != "__pycache__"}
    assert folders | {"data_builders", "eval", "rectune"} == set(FLOORS)
    loose = {file.stem for file in (ROOT / "rectune").glob("*.py")}
    assert loose == {"__init__", "__main__", "cli", "commands"}


def test_the_wheel_holds_every_folder() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    packages = {name for name, file in modules().items() if file.name == "__init__.py"}
    assert packages | {"rectune.templates", "rectune.recipes", "rectune.recipes.accelerate"} == listed


def test_the_page_of_the_house_lists_the_floors() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^\| `(?:rectune/)?(\w+)` \|", page, re.MULTILINE)
    assert tuple(listed) == FLOORS


def test_imports_point_down() -> None:
    up = {
        f"{a} -> {b}"
        for a, targets in arrows().items()
        for b in targets
        if FLOORS.index(room(b)) > FLOORS.index(room(a))
    }
    assert not up


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = arrows()
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(graph[module]):
                walk(target, (*path, module))
            done.add(module)

    for module in graph:
        walk(module, ())


@pytest.mark.parametrize(
    "text",
    [
        "import rectune.run.line",
        "def f():\n    from rectune.run import line",
        "if TYPE_CHECKING:\n    from rectune.run.line import Line",
    ],
)
def test_lazy_and_type_only_imports_count(text: str) -> None:
    assert "rectune.run.line" in set(imports(text, {"rectune.run", "rectune.run.line"}))
