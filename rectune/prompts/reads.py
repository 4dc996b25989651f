"""What a template does with its variables, read from its source."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import jinja2
from jinja2 import nodes

ANSWERS = ("completion", "spellings")  # macros that write what the model has to write
_ITEMS = {"reverse", "list", "length", "count", "first", "last"}  # filters that take items as they are
# Filters that may stand between a text and the place that prints it.
_CHAIN = {"reverse", "list", "first", "last", "join"}


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
    """Whether a node is none that could ask what a text is: what makes a text of items is printed and nothing else."""
    if isinstance(node, nodes.Name) and node.name == "user" and node.ctx == "load":
        # whether there is one is the same for all that share a pattern
        return _printed(above) or isinstance(above[0], nodes.If)
    if isinstance(node, nodes.Getattr):
        return node.attr not in columns or _printed(above)
    if isinstance(node, nodes.Getitem):
        known = isinstance(node.arg, nodes.Slice | nodes.Neg | nodes.Add | nodes.Sub | nodes.Const)
        return known and (getattr(node.arg, "value", None) not in columns or _printed(above))
    if isinstance(node, nodes.Filter):
        if node.name in ("map", "join"):  # `map` of an attribute, not by a filter
            return _printed(above) and (node.name == "join" or not node.args)
        return node.name in _ITEMS
    if isinstance(node, nodes.Call):  # of a macro, no method
        return isinstance(node.node, nodes.Name) and (node.node.name == "range" or _printed(above))
    if isinstance(node, nodes.Mod):  # of numbers, or a format
        return isinstance(node.right, nodes.Const) or _printed(above)
    if isinstance(node, nodes.Concat):
        return _printed(above)
    return not isinstance(node, nodes.AssignBlock | nodes.CallBlock | nodes.FilterBlock | nodes.Dict)


def _printed(above: tuple[nodes.Node, ...]) -> bool:
    """Whether a value goes from here straight into the text."""
    passed = (
        n for n in above if not isinstance(n, nodes.Concat) and not (isinstance(n, nodes.Filter) and n.name in _CHAIN)
    )
    return isinstance(next(passed, None), nodes.Output)
