"""The documents: every code block runs, the help is the program's own, the two commands are the ones that CI runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rectune.cli import build_parser

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.heavy
@pytest.mark.parametrize("page", [p for p in PAGES if p.stem != "command-line"], ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    ran = 0
    for kind, head, text in BLOCK.findall(page.read_text()):
        named = re.search(r"file=(\S+)", head)
        assert named or "run" in head, f"{page.name}: a {kind} block is neither a file nor run"
        if named:
            (tmp_path / named[1]).write_text(text)
            continue
        for line in text.strip().splitlines():
            assert line.startswith("rectune ")
            command = [sys.executable, "-m", *shlex.split(line)]
            out = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ})
            assert out.returncode == 0, f"{line}\n{out.stderr[-2000:]}"
            ran += 1
    assert ran > 0


def help_page() -> str:
    """docs/command-line.md, made from the parser. Write it anew with: python -m tests.test_docs"""
    os.environ["COLUMNS"] = "100"
    parser = build_parser()
    commands = next(action for action in parser._actions if action.dest == "command").choices
    parts = ["# Command line", "", "```text", parser.format_help().rstrip(), "```"]
    for name, command in commands.items():
        parts += ["", f"## rectune {name}", "", "```text", command.format_help().rstrip(), "```"]
    return "\n".join(parts) + "\n"


def test_the_help_in_the_docs_is_the_programs() -> None:
    assert (ROOT / "docs" / "command-line.md").read_text() == help_page()


def test_ci_runs_the_two_commands_of_the_readme() -> None:
    ci = [
        line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("python3 -m venv")
    ]
    readme = [
        line.strip() for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")
    ]
    assert len(ci) == 2
    assert sorted(ci) == sorted(readme)


def test_links_between_documents_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *PAGES, *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


if __name__ == "__main__":
    (ROOT / "docs" / "command-line.md").write_text(help_page())
