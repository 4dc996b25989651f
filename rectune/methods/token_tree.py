"""Examples of a batch that begin alike, forwarded once: a tree of tokens in which each sees itself and what stands before it.

The examples of a user, one for each target with the history before it, share most of their tokens. A tree holds a token that several of
them begin with once, at the place that it has in each, so hidden states, loss and gradients are those of the examples one by one
(without dropout). Examples that share nothing are trees of one branch: rows are packed with them the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rectune.decoding.padding import additive

IGNORED = -100
WORTH = 256  # pairs of tokens in attention that cost what a token does elsewhere; 6 times the width of a model, by multiplications


@dataclass
class Tree:
    """Tokens in the order of a walk that goes down first; lists of one length.

    `depth`: how many tokens stand before each. `parent`: place of the token before it, its own for a first one. `last`: place of the last token
    below it, so what a token sees is all before it whose `last` is not before it. `labels`: the token itself where it is learned, else -100.
    """

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, other: Tree) -> None:
        """Put another tree beside this one; they do not see each other."""
        start = len(self)
        self.ids += other.ids
        self.labels += other.labels
        self.depth += other.depth
        self.parent += [place + start for place in other.parent]
        self.last += [place + start for place in other.last]


class _Growing:
    """A tree that examples are put into."""

    def __init__(self) -> None:
        self._tokens, self._learned, self._children = [-1], [False], [dict[int, int]()]

    def __len__(self) -> int:
        return len(self._tokens) - 1

    def shares(self, ids: Sequence[int], labels: Sequence[int]) -> int:
        """How many tokens of an example are in the tree."""
        node = shared = 0
        for token, label in zip(ids, labels, strict=True):
            child = self._children[node].get(token)
            if child is None or (label != IGNORED and self._learned[child]):
                break
            node, shared = child, shared + 1
        return shared

    def add(self, ids: Sequence[int], labels: Sequence[int]) -> None:
        """Put an example in. A token that two examples learn at one place stands there twice, so that both count."""
        node = 0
        for token, label in zip(ids, labels, strict=True):
            child = self._children[node].get(token)
            if child is None or (label != IGNORED and self._learned[child]):
                child = len(self._tokens)
                # a second one is found under a key that no token has; what follows it is its own
                self._children[node][token if token not in self._children[node] else -child] = child
                self._tokens.append(token)
                self._learned.append(False)
                self._children.append({})
            self._learned[child] |= label != IGNORED
            node = child

    def walked(self) -> Tree:
        """The tree as it is read."""
        tree = Tree()
        open_: list[tuple[int, int, int]] = [(child, -1, 0) for child in reversed(self._children[0].values())]
        while open_:
            node, parent, depth = open_.pop()
            place = len(tree)
            tree.ids.append(self._tokens[node])
            tree.labels.append(self._tokens[node] if self._learned[node] else IGNORED)
            tree.depth.append(depth)
            tree.parent.append(place if parent < 0 else parent)
            tree.last.append(place)
            open_ += [(child, place, depth + 1) for child in reversed(self._children[node].values())]
        for place in range(len(tree) - 1, -1, -1):
            above = tree.parent[place]
            tree.last[above] = max(tree.last[above], tree.last[place])
        return tree


def trees_of(examples: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[list[int], Tree]]:
    """Examples that begin alike, each (ids, labels), as trees, with the numbers of the examples in each.

    An example joins the tree of those before it where what it shares is worth what it makes longer: attention reads every token of a row with
    every other, so histories that a window cuts, which begin elsewhere for each target, would make long rows in which little is shared.
    """
    trees: list[tuple[list[int], _Growing]] = []
    for number, (ids, labels) in enumerate(examples):
        shared = trees[-1][1].shares(ids, labels) if trees else 0
        if not trees or len(trees[-1][1]) * (len(ids) - shared) > WORTH * shared:
            trees.append(([], _Growing()))
        trees[-1][0].append(number)
        trees[-1][1].add(ids, labels)
    return [(numbers, tree.walked()) for numbers, tree in trees]


def packed(trees: Sequence[Tree]) -> list[Tree]:
    """Trees in rows no longer than the longest of them, the long ones first, each in the first row with room."""
    width = max(map(len, trees))
    rows: list[Tree] = []
    for tree in sorted(trees, key=len, reverse=True):
        row = next((row for row in rows if len(row) + len(tree) <= width), None)
        if row is None:
            row = Tree()
            rows.append(row)
        row.add(tree)
    return rows


class TreeCollator:
    """Makes the batch of a language model out of examples with `input_ids`, `labels` and, where those of one user are to share what they begin
    with, `group`."""

    def __init__(self, pad: int, reach: int | None) -> None:
        """`reach`: how many tokens the model's attention looks back, or None. Raises ValueError, when called, for longer examples."""
        self._pad, self._reach = pad, reach

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `labels`, `attention_mask`, `position_ids`, `parents` and `last`, each (rows, tokens)."""
        groups: dict[Any, list[tuple[Sequence[int], Sequence[int]]]] = {}
        for number, example in enumerate(examples):
            ids = example["input_ids"]
            if self._reach is not None and len(ids) > self._reach:
                raise ValueError(
                    f"an example has {len(ids)} tokens, and the model's attention looks back {self._reach}: rows that are shared cannot hold it. Lower "
                    "`max_length`, or use `examples: targets` without `packing`."
                )
            own = example.get("group", -1)
            groups.setdefault(own if own >= 0 else (number,), []).append((ids, example["labels"]))
        rows = packed([tree for group in groups.values() for _, tree in trees_of(group)])
        width = max(map(len, rows))

        def column(name: str, fill: int | None) -> torch.Tensor:
            filled = [
                getattr(row, name) + [fill if fill is not None else at for at in range(len(row), width)] for row in rows
            ]
            return torch.tensor(filled)

        real = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return {
            "input_ids": column("ids", self._pad), "labels": column("labels", IGNORED), "attention_mask": real,
            "position_ids": column("depth", 0), "parents": column("parent", None), "last": column("last", None),
        }  # fmt: skip


def visible(last: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask of trees, (rows, 1, tokens, tokens), from their `last`, (rows, tokens)."""
    at = torch.arange(last.shape[1], device=last.device)
    return additive((at[:, None] >= at) & (at[:, None] <= last[:, None, :]), dtype)


def said_before(hidden: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
    """The hidden state that says each token: that of the token before it, (rows, tokens, width)."""
    return hidden.gather(1, parents[..., None].expand(-1, -1, hidden.shape[2]))
