"""What tells two askings apart: hashes of keys, inputs and code."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import io
import json
import tokenize
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import rectune


def fingerprint(name: str, keys: Any, inputs: Sequence[str]) -> str:
    """Twelve hex digits of a SHA-256 over everything a stage depends on."""
    text = json.dumps([rectune.__version__, name, keys, list(inputs)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def source_of(function: Callable[..., Any]) -> str:
    """Hash of the code that `function` is made of, so that editing it rebuilds what it made; comments and docstrings don't count.

    That is the file which defines it, and of the files that it imports those in its own folder of rectune, and so on. What is
    done in another folder is named in the module's `MADE_OF`.
    """
    files: dict[str, None] = {}
    waiting: list[ModuleType | None] = [inspect.getmodule(function)]
    while waiting:
        module = waiting.pop()
        file = getattr(module, "__file__", None)
        if module is None or not file or file in files:
            continue
        files[file] = None
        waiting += [inspect.getmodule(other) for other in getattr(module, "MADE_OF", ())]
        waiting += [importlib.import_module(name) for name in _beside(module.__name__, _imported(file, _time(file)))]
    code = "".join(_code(file, _time(file)) for file in sorted(files, key=lambda f: Path(f).name))
    return hashlib.sha256(code.encode()).hexdigest()[:12] if files else ""


def _beside(module: str, imported: Sequence[str]) -> list[str]:
    """Of the imported modules those in the module's own folder of rectune: `rectune.tasks` and below."""
    top = ".".join(module.split(".")[:2])
    return [name for name in imported if top.startswith("rectune.") and name.startswith(f"{top}.") and _is_module(name)]


def _is_module(name: str) -> bool:
    """Whether a dotted name is a module, and not something that a module holds."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, AttributeError, ValueError):
        return False


def _time(file: str) -> int:
    return Path(file).stat().st_mtime_ns


@cache
def _imported(file: str, time: int) -> list[str]:
    """The modules that a file imports from, wherever in it."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
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
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    for node in ast.walk(ast.parse(text)):
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
