"""The documents: every code block runs, the help is the program's own, the two commands are the ones that CI runs."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest.mock import patch

import pytest

from rectune.cli import build_parser, main
from rectune.recipe.calls import keys_of
from rectune.recipe.homes import HOMES, offered
from tests.runs import forked, free_port

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def as_a_process(line: str, folder: Path) -> None:
    """Run a command as a user's shell would."""
    out = forked("-m", *shlex.split(line), folder=folder)
    assert out.returncode == 0, f"{line}\n{out.stderr[-2000:]}"


def here(line: str, folder: Path) -> None:
    """Run a command in this process, which has loaded the libraries; what it warns of is no error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([*shlex.split(line)[1:], "--traceback"]) == 0, line


EXTRAS = {
    "spark": ("pyspark",),
    "serving": ("fastapi", "gradio", "prometheus_client"),
}  # pages that need more than rectune alone


@pytest.mark.heavy
@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.stem not in ("command-line", "keys")], ids=lambda page: page.stem
)
def test_every_block_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for needed in EXTRAS.get(page.stem, ()):
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # files of the page are modules, found anew on each page
    alone = page.stem == "your-own-log"
    ran, names, servers = 0, {"__name__": "page"}, Servers(tmp_path)
    request.addfinalizer(servers.end)
    for kind, head, text in BLOCK.findall(page.read_text()):
        if named := re.search(r"file=(\S+)", head):
            (tmp_path / named[1]).parent.mkdir(exist_ok=True)
            (tmp_path / named[1]).write_text(text)
            continue
        how, _, port = head.strip().partition("=")
        assert how in ("run", "serve", "curl"), f"{page.name}: a {kind} block is neither a file nor run"
        if kind == "python":
            exec(compile(text, page.name, "exec"), names)
            ran += 1
            continue
        if port == "hub":
            request.getfixturevalue("hub")
        for line in text.strip().splitlines():
            ran += 1
            if how == "serve":
                servers.start(line, port)
            elif how == "curl":
                servers.ask(line, port)
            else:
                assert line.startswith("rectune ")
                (as_a_process if alone else here)(line, tmp_path)
    assert ran > 0


class Servers:
    """Commands of a page that stay, on ports that are free here."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started, self.ports = folder, [], {}

    def start(self, line: str, port: str) -> None:
        """Start a command, and wait until it listens."""
        self.ports[port] = free_port()
        command = [sys.executable, "-m", *shlex.split(line.replace(port, str(self.ports[port])))]
        self.started.append(subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        until = time.monotonic() + 60
        while time.monotonic() < until and self.started[-1].poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.ports[port]), timeout=1):
                return
            time.sleep(0.1)
        raise AssertionError(f"{line} does not listen")

    def ask(self, line: str, port: str) -> None:
        """Ask with curl, and expect an answer."""
        command = [
            *shlex.split(line.replace(port, str(self.ports[port]))),
            "--fail-with-body",
            "--retry",
            "20",
            "--retry-delay",
            "1",
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        assert out.returncode == 0, f"{line}\n{out.stdout}{out.stderr}"
        assert out.stdout, line

    def end(self) -> None:
        """End them."""
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.mark.heavy
def test_the_recipe_of_the_readme_runs(tmp_path: Path) -> None:
    for _, head, text in BLOCK.findall((ROOT / "README.md").read_text()):
        if named := re.search(r"file=(\S+)", head):
            (tmp_path / named[1]).parent.mkdir(exist_ok=True)
            (tmp_path / named[1]).write_text(text)
    titles = ["Green tea", "Black tea", "Teapot", "Kettle", "Cup", "Saucer", "Sugar", "Milk"]
    (tmp_path / "items.csv").write_text("item,title\n" + "\n".join(f"p{i},{t}" for i, t in enumerate(titles)))
    events = [f"u{u},p{(u + step * (1 + u % 3)) % 8},{100 * step + u}" for step in range(6) for u in range(30)]
    (tmp_path / "log.csv").write_text("user,item,time\n" + "\n".join(events))
    short = [
        "--index.codes",
        "4",
        "--rank.beams",
        "8",
        "--rank.k",
        "3",
        "--eval.k",
        "[1, 3]",
        "--stages.0.num_train_epochs",
        "1",
    ]
    for command in (["train", "mine.yaml", *short], ["recommend", "runs/mine", "--titles", "Green tea"]):
        out = forked("-m", "rectune", *command, folder=tmp_path)
        assert out.returncode == 0, out.stderr[-2000:]
    assert len(re.findall(r"\[p\d\]", out.stdout)) == 3


def help_page() -> str:
    """docs/command-line.md, made from the parser. Write it anew with: python -m tests.test_docs"""
    parser = build_parser()
    commands = next(action for action in parser._actions if action.dest == "command").choices
    with patch.dict(os.environ, COLUMNS="100"):
        parts = ["# Command line", "", "```text", parser.format_help().rstrip(), "```"]
        for name, command in commands.items():
            parts += ["", f"## rectune {name}", "", "```text", command.format_help().rstrip(), "```"]
            inside = next((action.choices for action in command._actions if isinstance(action.choices, dict)), {})
            for verb, inner in inside.items():
                parts += ["", f"### rectune {name} {verb}", "", "```text", inner.format_help().rstrip(), "```"]
    return "\n".join(parts) + "\n"


def templates_page() -> str:
    """templates/README.md: every wording of every template, rendered with the same small shop."""
    from rectune.prompts.template import codes_value, load_template

    def item(title: str, codes: list[int], liked: bool, rating: str) -> dict[str, object]:
        texts = {"title": title, "brand": "Leaf", "categories": "Tea", "description": "Made of steel, whistles."}
        return {**texts, "name": codes_value(codes), "liked": liked, "rating": rating}

    tokens = ["<a_4>", "<a_9>", "<b_2>", "<b_7>"]
    history = [item("Green tea", [0, 2], True, "5"), item("Teapot", [1, 2], False, "2")]
    target = item("Kettle", [1, 3], True, "4")
    variables = {"history": history, "target": target, "item": target, "liked": True}
    variables |= {"rating": "4", "lowest": "1", "highest": "5"}
    variables |= {
        "user": codes_value([0]),
        "intention": "something that boils water",
        "candidates": [item("Coffee", [0, 3], True, "3"), target],
        "preference": "Likes tea and what belongs to it.",
        "turns": [{"role": "user", "text": "Name a hot drink."}],
        "answer": "Tea.",
    }
    parts = [
        "# Templates",
        "",
        "Each template, rendered: what the model reads, then `→` and what it has to write. [How to write one](../docs/writing-a-template.md).",
        "This page is made from the files; a test compares it.",
    ]
    for file in sorted((ROOT / "templates").glob("*.jinja")):
        template = load_template(file)
        parts += ["", f"## {file.name}", "", re.sub(r"\s+", " ", template.source.partition("#}")[0].strip("{#- "))]
        for wording in range(template.wordings):
            sides = []
            for segments in (template.prompt(wording, variables), template.completion(wording, variables)):
                words = [
                    "".join(tokens[int(c)] for c in s.text.split()) if s.kind == "codes" else s.text for s in segments
                ]
                sides.append("".join(words).strip())
            parts += ["", "```text", f"{sides[0]} → {sides[1]}", "```"]
    return "\n".join(parts) + "\n"


def keys_page() -> str:
    """docs/keys.md: every key of the sections `model` and `stages`, what becomes of it, and the keys of all that other sections name."""
    import dataclasses

    from trl import ModelConfig

    from rectune.methods import dpo, grpo, s_dpo, seq2seq, sft
    from rectune.methods.keys import OURS, PASSED, REFUSED
    from rectune.methods.training import DEFAULTS, OLDER
    from rectune.model.settings import OWN, READ

    def default(kind: type, name: str) -> str:
        if (
            kind is sft.Config
            and name in (ours := {**DEFAULTS, **dict.fromkeys(OLDER, False)})
            and not name.endswith("kwargs")
        ):
            return f"`{ours[name]}`"
        value = next(
            (
                f.default
                for kind in (kind, s_dpo.Config, grpo.Config)
                for f in dataclasses.fields(kind)
                if f.name == name
            ),
            None,
        )
        value = None if value is dataclasses.MISSING else getattr(value, "value", value)
        return f"`{value}`" if value not in (None, "") else ""

    def methods(name: str) -> str:
        kinds = {
            "sft": sft.Config,
            "seq2seq": seq2seq.Config,
            "dpo": dpo.Config,
            "s_dpo": s_dpo.Config,
            "grpo": grpo.Config,
        }
        return ", ".join(
            call
            for call, kind in kinds.items()
            if name in {f.name for f in dataclasses.fields(kind)} and name not in getattr(kind, "refuses", {})
        )

    parts = [
        "# Keys",
        "",
        "The sections `model` and `stages` take the keys of library classes and a few of our own; the others those of [what they name](#what-a-section-names).",
        "This page is made from the classes and from what the code says of each key; a test keeps it complete.",
        "",
        "## `model`",
        "",
        "TRL's `ModelConfig`, and ours.",
        "",
        "| key | default | what becomes of it |",
        "|---|---|---|",
        *(f"| `{name}` | | {said} |" for name, said in OWN.items()),
        *(f"| `{name}` | {default(ModelConfig, name)} | {said} |" for name, said in READ.items()),
        "",
        "## `stages`: read by rectune",
        "",
        "`sft` takes the keys of TRL's `SFTConfig`, `dpo` and `s_dpo` those of its `DPOConfig`, `grpo` those of its `GRPOConfig`, `seq2seq` those of",
        "transformers' `TrainingArguments`; defaults are those of the libraries where no other is said, and those of the first method that is named.",
        "",
        "| key | methods | default | what becomes of it |",
        "|---|---|---|---|",
        *(f"| `{name}` | {methods(name)} | {default(sft.Config, name)} | {said} |" for name, said in OURS.items()),
        "",
        "## `stages`: passed through",
        "",
        "| key | methods | default | read by |",
        "|---|---|---|---|",
        *(
            f"| `{name}` | {methods(name)} | {default(sft.Config, name)} | {reader} |"
            for reader, names in PASSED.items()
            for name in names.split()
        ),
        "",
        "## `stages`: refused",
        "",
        "Where a recipe gives another value than the default, `rectune train` stops before anything is built and says why.",
        "",
        "| key | methods | why |",
        "|---|---|---|",
        *(f"| `{name}` | {methods(name)} | {why} |" for name, why in REFUSED.items()),
        "",
        "## What a section names",
        "",
        "`rectune ls SECTION NAME` prints the same. A key without a default has to be given.",
        *(line for section, home in HOMES.items() if not home.needs and not home.plain for line in _names(section)),
    ]
    return "\n".join(parts) + "\n"


def _names(section: str) -> list[str]:
    """The names of a section, what they do, and their keys with defaults."""
    rows = []
    for name, says in offered(HOMES[section]).items():
        told = keys_of(section, name)
        keys = ", ".join(f"`{key}: {default}`" if default else f"`{key}`" for key, default in told.items())
        rows.append(f"| `{name}` | {' '.join(says.split())} | {keys} |")
    return ["", f"### `{section}`", "", "| name | what it does | keys |", "|---|---|---|", *rows]


def test_the_templates_page_is_what_the_templates_render() -> None:
    assert (ROOT / "templates" / "README.md").read_text() == templates_page()


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


def test_every_dependency_is_explained() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "dependencies.md").read_text()
    first, _, second = page.partition("| extra |")
    listed = [re.findall(r"^\| `([\w-]+)` \|", part, re.MULTILINE) for part in (first, second)]
    assert sorted(listed[0]) == sorted(re.split("[<>=]", need)[0] for need in project["dependencies"])
    assert sorted(listed[1]) == sorted(project["optional-dependencies"])


def test_every_key_of_the_table_builder_is_explained() -> None:
    import inspect

    from rectune.data_builders.table import table

    page = (ROOT / "docs" / "your-own-log.md").read_text()
    keys = set(
        re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `")))
    )
    assert keys == set(inspect.signature(table).parameters)


if __name__ == "__main__":
    (ROOT / "docs" / "command-line.md").write_text(help_page())
    (ROOT / "docs" / "keys.md").write_text(keys_page())
    (ROOT / "templates" / "README.md").write_text(templates_page())
