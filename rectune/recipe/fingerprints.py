"""What tells two askings apart: hashes of keys, inputs and code."""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import json
import os
import tokenize
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import rectune


def fingerprint(name: str, keys: Any, inputs: Sequence[str]) -> str:
    """Twelve hex digits of a SHA-256 over everything a stage depends on."""
    text = json.dumps([rectune.__version__, name, keys, list(inputs)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def code_of(*made_by: Any) -> str:
    """Hash of the code that functions or modules are made of: the mark by which a result is told from one of other code.

    That is the files which define them, and whatever those import of rectune or from beside themselves, lazily too, and so on.
    Comments and docstrings do not count.
    """
    files: dict[Path, int] = {}  # with the times of their last change
    beside: dict[Path, set[str]] = {}  # what stands in a folder, looked up once for all names of this call
    made_in = (getattr(inspect.getmodule(one), "__file__", None) for one in made_by)
    waiting = [Path(file).resolve() for file in made_in if file]
    while waiting:
        file = waiting.pop()
        if file not in files:
            files[file] = _time(file)
            if file.parent not in beside:
                beside[file.parent] = set(os.listdir(file.parent))
            for name in _imported(str(file), files[file]):
                top = name.partition(".")[0]
                if top == "rectune":
                    waiting += _inside(name)
                elif not beside[file.parent].isdisjoint((top, f"{top}.py")):
                    waiting += _found(file.parent / top, name)
    told = {_code(str(file), time) for file, time in files.items()}
    return hashlib.sha256("\0".join(sorted(told)).encode()).hexdigest()[:12] if files else ""


@cache
def _inside(name: str) -> list[Path]:
    """The file of a module of rectune, as a list; none for what is no module, and for the face of the package, which names everything."""
    if name == "rectune":
        return []
    return next((found for root in rectune.__path__ if (found := _found(Path(root), name))), [])


def _found(top: Path, name: str) -> list[Path]:
    """The file of a dotted name whose first part is `top`, a folder or a file without its ending, as a list; none where there is no such file."""
    place = top.joinpath(*name.split(".")[1:])
    return [file.resolve() for file in (place.with_name(f"{place.name}.py"), place / "__init__.py") if file.is_file()][
        :1
    ]


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns


@cache
def _imported(file: str, time: int) -> list[str]:
    """The modules that a file imports from, wherever in it."""
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except SyntaxError:  # a file that is being edited; whoever runs it says what is wrong
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


@cache
def _code(file: str, time: int) -> str:
    """A file without its comments, docstrings and empty lines: its own characters, so every version of Python tells the same."""
    text = Path(file).read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text
    lines = text.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            said = node.body[0]
            for number in range(said.lineno - 1, said.end_lineno or said.lineno):
                lines[number] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def name_of(function: Any) -> str:
    """What a fingerprint calls a callable, however the recipe names it: 'module:function', or 'module'."""
    inside = getattr(function, "__qualname__", None)
    return f"{function.__module__}:{inside}" if inside else str(function.__name__)
