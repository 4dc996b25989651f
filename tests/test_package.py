"""The package: what it exports, what it imports, what it weighs."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rectune

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "polars", "sklearn", "matplotlib")


def imported_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.partition(".")[0] for name in out.stdout.splitlines()}


def test_public_names_are_pinned_and_importable() -> None:
    expected = "ItemIndex Log Ranking Recipe Recommender Split Template evaluate load_recipe make_log train".split()
    assert rectune.__all__ == expected == sorted(expected)
    for name in expected:
        assert getattr(rectune, name).__name__ == name


def test_an_unknown_public_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match="load_recipe"):
        rectune.load_recipes  # noqa: B018


def test_importing_rectune_imports_no_heavy_library() -> None:
    assert not imported_after("import rectune") & set(HEAVY)


def test_listing_recipes_imports_no_heavy_library() -> None:
    after = imported_after("from rectune.cli import main; main(['ls']); main(['show', 'quickstart'])")
    assert not after & set(HEAVY)


def test_the_four_folders_are_part_of_the_package() -> None:
    for name in ("data_builders.table", "eval.ranking", "templates", "recipes"):
        importlib.import_module(f"rectune.{name}")
    for wrong in ("rectune.rectune", "rectune.tests"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(wrong)


def test_a_folder_refuses_to_be_imported_under_another_name() -> None:
    out = subprocess.run(
        [sys.executable, "-c", "import data_builders"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert "import this package as `rectune.data_builders`" in out.stderr


def test_the_core_never_imports_builders_or_evaluators() -> None:
    for file in (ROOT / "rectune").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.startswith(("rectune.data_builders", "rectune.eval"))], file


def test_every_public_function_has_a_docstring() -> None:
    for folder in ("rectune", "data_builders", "eval"):
        for file in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text())
            assert ast.get_docstring(tree), file
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    assert ast.get_docstring(node), f"{file}: {node.name}"


@pytest.mark.benchmark
def test_the_wheel_runs_the_quickstart_in_an_unrelated_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-compile",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    assert (site / "rectune" / "bundle" / "export-card.md.jinja").exists()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    few = [
        "--data.users", "60", "--data.items", "300", "--stages.0.num_train_epochs", "1", "--stages.0.max_steps", "3",
        "--stages.0.eval_strategy", "no", "--stages.0.save_strategy", "no", "--stages.0.load_best_model_at_end", "false",
        "--eval.shuffled_rows", "0", "--output_dir", "run",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(site)}
    where = [sys.executable, "-c", "import rectune; print(rectune.__file__)"]
    found = subprocess.run(where, check=True, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(site))
    run = [sys.executable, "-m", "rectune", "train", "quickstart", *few]
    out = subprocess.run(run, check=False, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "tuned model" in out.stdout
    assert (elsewhere / "run" / "report.html").stat().st_size > 10_000


def test_the_readme_has_no_relative_link_on_a_package_index() -> None:
    place = "https://example.org/rectune/blob/v1"
    command = [sys.executable, str(ROOT / ".ci" / "absolute_links.py"), place]
    out = subprocess.run(command, capture_output=True, text=True, check=True, input=(ROOT / "README.md").read_text())
    links = re.findall(r"\]\(([^)]+)\)", out.stdout)
    assert links
    assert not [link for link in links if not link.startswith("https://")]
    assert f"[ranking and priors]({place}/docs/ranking.md)" in out.stdout
