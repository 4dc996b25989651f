"""What tells two askings apart: hashes of keys, inputs and code."""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import json
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
    files: set[Path] = set()
    waiting = [Path(file) for file in (getattr(inspect.getmodule(one), "__file__", None) for one in made_by) if file]
    while waiting:
        file = waiting.pop().resolve()
        if file not in files:
            files.add(file)
            waiting += [place for name in _imported(str(file), _time(file)) for place in _ours(name, file.parent)]
    told = {_code(str(file), _time(file)) for file in files}
    return hashlib.sha256("\0".join(sorted(told)).encode()).hexdigest()[:12] if files else ""


def _ours(name: str, beside: Path) -> list[Path]:
    """The file of a dotted name where it is a module of rectune, or one beside the file that imports it."""
    top, *inside = name.split(".")
    roots = [Path(place) for place in rectune.__path__] if top == "rectune" else [beside / top]
    if top == "rectune" and not inside:
        return []  # the face of the package names everything
    for root in roots:
        place = root.joinpath(*inside)
        for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if file.is_file():
                return [file]
    return []


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
