"""The trie of what the items really tokenise to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Trie:
    """Token sequences of all items, as a tree. Node 0 is the root.

    `children[node]` maps a token id to a node; `item[node]` is the item that ends there, or -1; `parent[node]` is
    the node above. `depth` is the length of the longest name in tokens.
    """

    children: list[dict[int, int]]
    item: NDArray[np.int32]
    parent: NDArray[np.int32]
    leaf: NDArray[np.int32]
    depth: int

    def walk(self, tokens: Iterable[int]) -> int:
        """Return the node that `tokens` lead to from the root, or -1."""
        node = 0
        for token in tokens:
            node = self.children[node].get(token, -1)
            if node < 0:
                return -1
        return node

    def dead_nodes(self, items: Iterable[int]) -> set[int]:
        """Return the nodes below which there is nothing but `items`."""
        dead: set[int] = set()
        for item in items:
            node = int(self.leaf[item])
            while node > 0 and all(child in dead for child in self.children[node].values()):
                dead.add(node)
                node = int(self.parent[node])
        return dead


def build_trie(names: Sequence[Sequence[int]], *, fixed_length: bool) -> Trie:
    """Build the trie; `names[i]` are the token ids of item i, end token included where there is one.

    `fixed_length` demands names of one length (a template without an end token).
    Raises ValueError when two items have the same tokens, or one name is a prefix of another.
    """
    children: list[dict[int, int]] = [{}]
    item, parent = [-1], [-1]
    leaf = np.zeros(len(names), dtype=np.int32)
    for number, tokens in enumerate(names):
        node = 0
        for token in tokens:
            if item[node] >= 0:
                raise _clash(item[node], number)
            if token not in children[node]:
                children[node][token] = len(children)
                children.append({})
                item.append(-1)
                parent.append(node)
            node = children[node][token]
        if item[node] >= 0 or children[node]:
            raise _clash(item[node] if item[node] >= 0 else _below(children, item, node), number)
        item[node] = number
        leaf[number] = node
    lengths = {len(tokens) for tokens in names}
    if fixed_length and len(lengths) > 1:
        raise ValueError(
            f"names are {min(lengths)} to {max(lengths)} tokens long, and the template says `end = false`; only names of one "
            "length can do without an end token. Remove that line from the template."
        )
    return Trie(children, np.array(item, dtype=np.int32), np.array(parent, dtype=np.int32), leaf, max(lengths))


def _below(children: list[dict[int, int]], item: list[int], node: int) -> int:
    while item[node] < 0:
        node = next(iter(children[node].values()))
    return item[node]


def _clash(one: int, other: int) -> ValueError:
    return ValueError(
        f"items {one} and {other} tokenise to the same name, or one name begins the other; this tokenizer cannot tell them "
        "apart. Use an index of new tokens (`atomic`, `residual_kmeans`)."
    )
