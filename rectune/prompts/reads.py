"""What a template does with its variables, read from its source."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import jinja2
from jinja2 import nodes

ANSWERS = ("completion", "spellings")  # macros that write what the model has to write
_WHOLE = {"reverse", "list", "length", "count", "first", "last", "join", "map"}  # filters that take items as they are
_CHAIN = {
    "reverse",
    "list",
    "first",
    "last",
    "join",
}  # … and may stand between the texts of items and the place that prints them


@lru_cache(maxsize=64)
def only_prints(source: str, columns: tuple[str, ...]) -> bool:
    """Whether a template does nothing with a column of an item, or with `user`, but print it, in all that it writes before the completion.

    So it cannot ask what a text is: what it writes around texts is the same whatever they are. False where that is not plain to see.
    """
    return all(_harmless(node, above, columns) for node, above in _walk(jinja2.Environment().parse(source), ()))


@lru_cache(maxsize=64)
def reads(source: str, macro: str, name: str) -> bool:
    """Whether a macro, or one that may be called by it, reads a variable."""
    tree = jinja2.Environment().parse(source)
    return any(
        node.name == name and node.ctx == "load"
        for found in tree.find_all(nodes.Macro) if found.name == macro or found.name not in ("prompt", *ANSWERS)
        for node in found.find_all(nodes.Name)
    )  # fmt: skip


def _walk(node: nodes.Node, above: tuple[nodes.Node, ...]) -> Iterator[tuple[nodes.Node, tuple[nodes.Node, ...]]]:
    """Every node with those above it, the nearest first."""
    for child in node.iter_child_nodes():
        if isinstance(child, nodes.Macro) and child.name in ANSWERS:
            continue
        yield child, (node, *above)
        yield from _walk(child, (node, *above))


def _harmless(node: nodes.Node, above: tuple[nodes.Node, ...], columns: tuple[str, ...]) -> bool:
    if isinstance(node, nodes.Name) and node.name == "user" and node.ctx == "load":
        return _printed(above) or isinstance(
            above[0], nodes.If
        )  # whether there is one is the same for all that share a pattern
    if isinstance(node, nodes.Getattr):
        return node.attr not in columns or _printed(above)
    if isinstance(node, nodes.Getitem):
        known = isinstance(node.arg, nodes.Slice | nodes.Neg | nodes.Add | nodes.Sub | nodes.Const)
        return known and (getattr(node.arg, "value", None) not in columns or _printed(above))
    if isinstance(node, nodes.Filter):
        texts = node.name == "map"
        return node.name in _WHOLE and (not texts or (not node.args and _printed(above)))
    if isinstance(node, nodes.Call):
        return isinstance(node.node, nodes.Name)
    return not isinstance(node, nodes.CallBlock | nodes.FilterBlock)


def _printed(above: tuple[nodes.Node, ...]) -> bool:
    """Whether a value goes from here straight into the text."""
    chain = iter(above)
    for node in chain:
        if isinstance(node, nodes.Concat) or (isinstance(node, nodes.Filter) and node.name in _CHAIN):
            continue
        return isinstance(node, nodes.Output)
    return False
