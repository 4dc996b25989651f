"""Contracts: what a section of a recipe calls is stated as a typing.Protocol beside the thing that it makes, and held to it here."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Takes:
    """How a function is called. `first`: by position, in this order; `always`: by name; `may`: by name, where it has such a parameter;
    `open`: and with keys of the recipe; `returns`: the annotation of what it gives."""

    first: tuple[str, ...]
    always: tuple[str, ...]
    may: tuple[str, ...]
    open: bool
    returns: str

    def __str__(self) -> str:
        return ", ".join([*self.first, *(f"{name}=…" for name in self.always)])

    def fits(self, function: Callable[..., Any]) -> bool:
        """Whether a function can be called so."""
        signature = inspect.signature(function)
        bind = signature.bind_partial if self.open else signature.bind  # a key of the recipe may have no default
        given = (*self.always, *(name for name in self.may if name in signature.parameters))
        try:
            bind(*self.first, **dict.fromkeys(given))
        except TypeError:
            return False
        return True


@dataclass(frozen=True)
class Contract:
    """What a Protocol says: of a function `call`; of a module the `attributes` that it defines and its `functions`."""

    call: Takes | None
    attributes: tuple[str, ...]
    functions: Mapping[str, Takes]

    @property
    def names(self) -> tuple[str, ...]:
        """What a module defines."""
        return (*self.attributes, *self.functions)


@cache
def contract_at(place: str) -> Contract:
    """The contract at 'package.module:Protocol'; it is read from the file, nothing of it is imported."""
    module, _, name = place.partition(":")
    spec = importlib.util.find_spec(module)
    tree = ast.parse(Path(str(spec and spec.origin)).read_text(encoding="utf-8"))
    (stated,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    functions = {node.name: _takes(node) for node in stated.body if isinstance(node, ast.FunctionDef)}
    attributes = [ast.unparse(node.target) for node in stated.body if isinstance(node, ast.AnnAssign)]
    return Contract(functions.pop("__call__", None), tuple(attributes), functions)


def _takes(node: ast.FunctionDef) -> Takes:
    named = list(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))
    return Takes(
        tuple(one.arg for one in node.args.args if one.arg != "self"),
        tuple(one.arg for one, default in named if default is None),
        tuple(one.arg for one, default in named if default is not None),
        node.args.kwarg is not None,
        ast.unparse(node.returns) if node.returns is not None else "",
    )


def check_function(function: Any, takes: Takes, where: str) -> None:
    """Raise ValueError for what is no function, and for one that does not begin with what its section gives."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        begins = tuple(inspect.signature(function).parameters)[: len(takes.first)]
    except (TypeError, ValueError):  # a module; one that is not written in Python and tells nothing of what it takes
        raise ValueError(f"{where}: `{name}` is not a function; type 'package.module:function'.") from None
    if begins == takes.first and takes.fits(function):
        return
    may = f"; it may also take {', '.join(f'`{name}`' for name in takes.may)}" if takes.may else ""
    raise ValueError(
        f"{where}: `{name}` begins with ({', '.join(begins)}), but functions of this section are called with ({takes}){may}."
    )


def check_module(module: ModuleType, contract: Contract, may: Contract | None, what: str, where: str) -> None:
    """Raise ValueError for a module that lacks what a contract needs, or whose functions are not called as it and `may` say."""
    missing = [name for name in contract.names if not hasattr(module, name)]
    if missing:
        needed = ", ".join(f"`{name}`" for name in contract.names)
        raise ValueError(
            f"{where}: {what} is a module with {needed}; it has no {', '.join(f'`{n}`' for n in missing)}."
        )
    for name, takes in {**contract.functions, **(may.functions if may else {})}.items():
        function = getattr(module, name, None)
        if function is not None and not (callable(function) and takes.fits(function)):
            raise ValueError(f"{where}: `{name}` of {what} is called with ({takes}), and this one cannot be.")
