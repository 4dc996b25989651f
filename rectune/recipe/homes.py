"""What a section of a recipe can name: where its short names live, and what each says of itself."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import rectune
from rectune.recipe.contracts import Takes, check_function, check_module, contract_at


@dataclass(frozen=True)
class Home:
    """Where the short names of a section live, and the contract of what they name.

    `place`: a package, whose file `name.py` offers `attribute` (by default the function `name`), or a module, whose public
    functions are the names (`whole`). `contract`: 'module:Protocol', of a function by the annotation of its result known as one, or of a
    module; `may_have`: of what a module may define as well. `plain`: named by itself, it takes no keys.
    """

    place: str
    contract: str
    may_have: str = ""
    attribute: str = ""
    whole: bool = False
    plain: bool = False

    @property
    def call(self) -> Takes | None:
        """How a function of it is called; None where modules are named."""
        return contract_at(self.contract).call

    @property
    def first(self) -> tuple[str, ...]:
        """The parameters that a function begins with."""
        return self.call.first if self.call is not None else ()

    @property
    def needs(self) -> tuple[str, ...]:
        """What a module must define; () where functions are named."""
        return contract_at(self.contract).names

    @property
    def may_define(self) -> tuple[str, ...]:
        """What a module may define as well."""
        return contract_at(self.may_have).names if self.may_have else ()

    @property
    def may(self) -> tuple[str, ...]:
        """What a function is given where it has such a parameter."""
        return self.call.may if self.call is not None else ()

    def full(self, name: str) -> str:
        """The dotted name of a short one."""
        if self.whole:
            return f"{self.place}:{name}"
        return f"{self.place}.{name}" if self.needs else f"{self.place}.{name}:{self.attribute or name}"

    def check(self, named: Any, where: str) -> None:
        """Raise ValueError for a function or a module that does not keep the contract."""
        stated = contract_at(self.contract)
        if stated.call is not None:
            check_function(named, stated.call, where)
        else:
            what = f"a {self.contract.rpartition(':')[2].lower()}"
            check_module(named, stated, contract_at(self.may_have) if self.may_have else None, what, where)


HOMES = {
    "data": Home("rectune.data_builders", "rectune.log.log:Builder"),
    "split": Home("rectune.log.splits", "rectune.log.split:Splitter"),
    "vectors": Home("rectune.vectors", "rectune.vectors.item_vectors:VectorSource"),
    "index": Home("rectune.indexing", "rectune.indexing.item_index:Indexer"),
    "tasks": Home("rectune.tasks", "rectune.tasks.rows:Task"),
    "tasks.history": Home("rectune.tasks.history", "rectune.tasks.history:HistorySelector", whole=True),
    "tasks.writer": Home("rectune.tasks.writers", "rectune.tasks.written:Writer"),
    "stages": Home("rectune.methods", "rectune.methods.contract:Method", may_have="rectune.methods.contract:MethodMay"),
    "stages.rewards": Home("rectune.methods.rewards", "rectune.methods.rewards:Rewarding", whole=True, plain=True),
    "rank.prior": Home("rectune.baselines", "rectune.baselines.prior:Prior"),
    "eval": Home("rectune.eval", "rectune.run.judged:Evaluator"),
    "eval.oracle": Home("rectune.data_builders", "rectune.baselines.scoring:Oracle", attribute="oracle", plain=True),
}
# Where a dotted name stood before the folders were cut by their jobs -> the section whose short name is the same word.
MOVED = {
    "rectune.split": "split", "rectune.row_splits": "split", "rectune.tasks": "tasks", "rectune.text_tasks": "tasks",
    "rectune.instructions": "tasks", "rectune.history": "tasks.history", "rectune.writers.extractive": "tasks.writer",
    "rectune.writers.causal_model": "tasks.writer", "rectune.vectors.texts": "vectors", "rectune.eval.prior": "rank.prior",
}  # fmt: skip


SETTABLE = {"seed", "history"}  # what rectune gives where the recipe gives nothing else


def home_of(key: str) -> Home | None:
    """The home of the callable that `key` names, e.g. 'tasks.0.writer'; None where only dotted names work."""
    parts = [part for part in key.split(".") if not part.isdigit()]
    if parts[:2] == ["stages", "tasks"]:
        parts = parts[1:]
    if parts == ["writer"]:  # a task hands its writer on
        parts = ["tasks", "writer"]
    for length in range(len(parts), 0, -1):  # an index that takes another one names it in its own home
        if ".".join(parts[:length]) in HOMES:
            return HOMES[".".join(parts[:length])]
    return None


@cache
def offered(home: Home) -> dict[str, str]:
    """The short names of a home with what each says of itself; nothing is imported."""
    found: dict[str, str] = {}
    for file in _files(home.place):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        defined = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        if home.whole:
            found |= {name: (ast.get_docstring(node) or "") for name, node in defined.items() if _offers(node, home)}
        elif home.needs:
            handed = {
                alias.asname or alias.name for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names
            }
            whole = all(name in defined or name in handed for name in home.needs)
            found |= {file.stem: (ast.get_docstring(tree) or "")} if whole and set(home.needs) & set(defined) else {}
        else:
            node = defined.get(home.attribute or file.stem)
            found |= {file.stem: (ast.get_docstring(node) or "")} if node is not None and _offers(node, home) else {}
    return found


def _files(place: str) -> list[Path]:
    """The Python files of a package of ours, or the one file of a module."""
    inside = place.split(".")[1:]
    for root in map(Path, rectune.__path__):
        folder = root.joinpath(*inside)
        if folder.is_dir():
            return sorted(file for file in folder.glob("*.py") if not file.stem.startswith("_"))
        if folder.with_suffix(".py").is_file():
            return [folder.with_suffix(".py")]
    raise ModuleNotFoundError(f"no module `{place}`", name=place)


def _offers(node: ast.AST, home: Home) -> bool:
    if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
        return False
    return home.call is not None and node.returns is not None and ast.unparse(node.returns) == home.call.returns


def first_sentence(text: str) -> str:
    """The first sentence of a docstring."""
    text = " ".join(text.split())
    return re.split(r"\.\s+(?=[A-Z`])", text, maxsplit=1)[0].rstrip(".") + "." if text else ""  # not at "sec. 3.2"
