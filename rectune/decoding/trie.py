"""The trie of what the items really tokenise to: a breadth-first child table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
FILE = "trie.safetensors"


@dataclass(frozen=True)
class Trie:
    """Token sequences of all items, as a tree whose nodes are numbered breadth-first. Node 0 is the root.

    The children of node n are the nodes `first[n]` to `first[n + 1]`; nodes from `len(first) - 1` on have none.
    `codes`: (nodes,) uint8, int16 or int32, the token that leads to a node, as a position in the sorted `tokens` of
    its level. `tokens[l]`: token ids of level l, int64. `levels`: (depth + 2,) the first node of each level, the
    root's level first. Leaves are numbered in node order; `leaves` holds their nodes, or is empty where all of them
    are the last level. `items`: (leaves,) int32, the item of each leaf, or empty where leaf i is item i.
    """

    codes: NDArray[np.uint8 | np.int16 | np.int32]
    first: NDArray[np.int32]
    levels: Ints
    tokens: tuple[Ints, ...]
    leaves: NDArray[np.int32]
    items: NDArray[np.int32]

    @property
    def depth(self) -> int:
        """The length of the longest name in tokens."""
        return len(self.levels) - 2

    @property
    def n_items(self) -> int:
        """How many items there are."""
        return len(self.leaves) or int(self.levels[-1] - self.levels[-2])

    @property
    def table_bytes(self) -> int:
        """Size of what a search step reads: codes and pointers."""
        return self.codes.nbytes + self.first.nbytes

    @cached_property
    def fan_out(self) -> list[int]:
        """The most children that a node of each level has, the root's level first."""
        counts = np.diff(self.first)
        ends = np.minimum(self.levels, len(counts))
        return [int(counts[a:b].max()) if b > a else 0 for a, b in pairwise(ends[:-1])]

    def widest(self, beams: int) -> int:
        """The most children that one step of a search with so many beams can score for a row."""
        nodes = np.minimum(np.diff(self.levels[:-1]), beams)
        return int((nodes * np.array(self.fan_out)).max())

    def is_leaf(self, nodes: Ints) -> NDArray[np.bool_]:
        """Whether an item ends at a node; any shape."""
        return np.asarray(self._first_of(nodes) == self._first_of(nodes + 1))

    def item_of(self, leaves: Ints) -> NDArray[np.int32]:
        """The item that ends at each leaf node; any shape, -1 stays -1."""
        number = np.searchsorted(self.leaves, leaves) if len(self.leaves) else leaves - self.levels[-2]
        number = np.where(leaves < 0, 0, number)
        found = self.items[number] if len(self.items) else number
        return np.where(leaves < 0, -1, found).astype(np.int32)

    def leaf_of(self, items: Ints) -> Ints:
        """The leaf node of each item; any shape."""
        number = self._leaf_number[items] if len(self.items) else items
        return np.asarray(self.leaves[number] if len(self.leaves) else number + self.levels[-2], dtype=np.int64)

    @cached_property
    def _leaf_number(self) -> Ints:
        number = np.empty(len(self.items), dtype=np.int64)
        number[self.items] = np.arange(len(self.items))
        return number

    def parent_of(self, nodes: Ints) -> Ints:
        """The node above each node (not the root); any shape."""
        wanted = nodes.astype(self.first.dtype)  # another type would copy the table
        return np.asarray(np.searchsorted(self.first, wanted, side="right") - 1, dtype=np.int64)

    def level_of(self, nodes: Ints) -> Ints:
        """How many tokens lead to each node; any shape."""
        return np.asarray(np.searchsorted(self.levels, nodes, side="right") - 1, dtype=np.int64)

    def children(self, node: int) -> dict[int, int]:
        """Token id -> child node."""
        start, stop = (int(x) for x in self._first_of(np.array([node, node + 1])))
        if start == stop:
            return {}
        tokens = self.tokens[int(self.level_of(np.array(node)))]
        return dict(zip(tokens[self.codes[start:stop]].tolist(), range(start, stop), strict=True))

    def walk(self, tokens: Iterable[int]) -> int:
        """The node that token ids lead to from the root, or -1."""
        node = 0
        for token in tokens:
            node = self.children(node).get(token, -1)
            if node < 0:
                return -1
        return node

    def living(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The nodes with at least one item of `kept` (items,) at or below them; shape (nodes,)."""
        alive = np.zeros(len(self.codes), dtype=bool)
        alive[self.leaf_of(np.flatnonzero(kept))] = True
        for level in range(self.depth - 1, -1, -1):
            nodes = np.arange(self.levels[level], min(self.levels[level + 1], len(self.first) - 1))
            below = int(self.levels[level + 1])
            counts = np.concatenate([[0], np.cumsum(alive[below : self.levels[level + 2]])])
            alive[nodes] |= counts[self.first[nodes + 1] - below] > counts[self.first[nodes] - below]
        return alive

    def paths(self, items: Sequence[Sequence[int]]) -> list[NDArray[np.int64]]:
        """For each level from 1 the nodes on the way to a row's items: (rows, most) int64, distinct, -1 at the end."""
        return self._by_level(items, whole=False)

    def emptied(self, items: Sequence[Sequence[int]], alive: NDArray[np.bool_] | None = None) -> list[Ints]:
        """For each level from 1 the nodes below which a row's items are all there is: (rows, most), -1 at the end.

        `alive`: nodes that count at all (see `living`).
        """
        return self._by_level(items, whole=True, alive=alive)

    def _by_level(
        self, items: Sequence[Sequence[int]], *, whole: bool, alive: NDArray[np.bool_] | None = None
    ) -> list[Ints]:
        """Go up from the items' leaves. `whole`: a node is passed only when all its (living) children were."""
        size = len(self.codes)
        row = np.repeat(np.arange(len(items)), [len(set(some)) for some in items])
        leaf = self.leaf_of(np.array([i for some in items for i in sorted(set(some))], dtype=np.int64))
        if alive is not None:
            row, leaf = row[alive[leaf]], leaf[alive[leaf]]
        depth = self.level_of(leaf)
        counts = np.concatenate([[0], np.cumsum(alive)]) if alive is not None else np.arange(size + 1)
        keys, out = np.zeros(0, dtype=np.int64), []
        for level in range(self.depth, 0, -1):
            keys = np.union1d(keys, (row * size + leaf)[depth == level])
            rows, nodes = keys // size, keys % size
            out.append(_ragged(rows, nodes, len(items)))
            keys, passed = np.unique(rows * size + self.parent_of(nodes), return_counts=True)
            if whole:
                above = keys % size
                keys = keys[passed == counts[self.first[above + 1]] - counts[self.first[above]]]
        return out[::-1]

    def _first_of(self, nodes: Ints) -> NDArray[np.int32]:
        return self.first[np.minimum(nodes, len(self.first) - 1)]

    def names(self) -> Ints:
        """Token ids of the name of every item, (items, depth), -1 after the end of shorter ones."""
        node = self.leaf_of(np.arange(self.n_items))
        out = np.full((self.n_items, self.depth), -1, dtype=np.int64)
        level = self.level_of(node)
        for column in range(self.depth - 1, -1, -1):
            here = np.flatnonzero(level == column + 1)
            out[here, column] = self.tokens[column][self.codes[node[here]]]
            node[here], level[here] = self.parent_of(node[here]), column
        return out

    def save(self, file: Path) -> None:
        """Write one safetensors file."""
        from safetensors.numpy import save_file

        tensors = {f"tokens.{level}": tokens for level, tokens in enumerate(self.tokens)}
        plain = {name: getattr(self, name) for name in ("codes", "first", "levels", "leaves", "items")}
        save_file({**plain, **tensors}, file)

    @staticmethod
    def load(file: Path) -> Trie:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        held = load_file(file)
        tokens = tuple(held.pop(f"tokens.{level}") for level in range(len(held["levels"]) - 2))
        return Trie(tokens=tokens, **held)


class Clash(ValueError):
    """Two items whose names are one in tokens, or of which one begins the other. `items`: their numbers."""

    def __init__(self, one: int, other: int, called: Callable[[int], str] = str) -> None:
        self.items = (one, other)
        super().__init__(
            f"items {called(one)} and {called(other)} tokenise to the same name, or one name begins the other; this tokenizer cannot tell them "
            "apart. Use an index of new tokens (`atomic`, `residual_kmeans`)."
        )


def build_trie(names: NDArray[np.integer] | Sequence[Sequence[int]], *, fixed_length: bool) -> Trie:
    """Build the trie; `names[i]` are the token ids of item i, end token included where there is one.

    An array is (items, longest), with -1 after the end of shorter names. `fixed_length` demands names of one length
    (a template without an end token). Raises ValueError when there are no names, two items have the same tokens, or
    one name begins another.
    """
    table = names if isinstance(names, np.ndarray) else _table(names)
    if table.size == 0:
        raise ValueError("there are no items to build a trie of.")
    lengths = (table >= 0).sum(axis=1)
    if lengths.min() == 0:
        raise ValueError(f"item {int(lengths.argmin())} has no tokens.")
    if fixed_length and lengths.min() < lengths.max():
        raise ValueError(
            f"names are {lengths.min()} to {lengths.max()} tokens long, and the template says `end = false`; only names of "
            "one length can do without an end token. Remove that line from the template."
        )
    tokens, columns = zip(*(_ranked(table[:, level]) for level in range(table.shape[1])), strict=True)
    order = _lexicographic(columns, [len(t) + 1 for t in tokens])
    return _from_sorted(list(tokens), [column[order] for column in columns], lengths[order], order)


def _from_sorted(tokens: list[Ints], columns: list[NDArray[np.int32]], lengths: Ints, order: Ints) -> Trie:
    """Build from columns of codes (0 = none, else 1 + position in `tokens`) whose rows are in lexicographic order."""
    widest = max(map(len, tokens))
    kind = np.uint8 if widest <= 256 else np.int16 if widest <= 32768 else np.int32
    new = np.zeros(len(order), dtype=bool)  # where a row differs from the one before, in the columns so far
    new[0] = True
    heads = np.zeros(1, dtype=np.int64)  # the row at which each node of the level begins
    levels, codes, first, leaves, items = [0, 1], [np.zeros(1, dtype=kind)], [], [], []
    for level, column in enumerate(columns):
        new[1:] |= column[1:] != column[:-1]
        begins = new & (lengths > level)
        starts = np.flatnonzero(begins)
        first.append(levels[-1] + np.searchsorted(starts, heads))
        codes.append((column[starts] - 1).astype(kind))
        ends = lengths == level + 1
        clash = np.flatnonzero(ends[:-1] & ~new[1:])
        if len(clash):
            raise Clash(*sorted(order[clash[0] : clash[0] + 2].tolist()))
        leaves.append(levels[-1] + np.cumsum(begins)[ends] - 1)
        items.append(order[ends])
        levels.append(levels[-1] + len(starts))
        heads = starts
    first.append(np.array([levels[-1]]))
    item = np.concatenate(items).astype(np.int32)
    uniform = lengths[0] == len(columns) and lengths.min() == lengths.max()
    return Trie(
        codes=np.concatenate(codes),
        first=np.concatenate(first).astype(np.int32),
        levels=np.array(levels, dtype=np.int64),
        tokens=tuple(tokens),
        leaves=np.zeros(0, dtype=np.int32) if uniform else np.concatenate(leaves).astype(np.int32),
        items=np.zeros(0, dtype=np.int32) if np.array_equal(item, np.arange(len(item))) else item,
    )


def _table(names: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Lists of token ids as an array, -1 after the end of shorter ones."""
    table = np.full((len(names), max(map(len, names), default=0)), -1, dtype=np.int64)
    for row, name in zip(table, names, strict=True):
        row[: len(name)] = name
    return table


def _ranked(column: NDArray[np.integer]) -> tuple[Ints, NDArray[np.int32]]:
    """The sorted distinct token ids of a column, and for each row 1 + its place among them, 0 for -1."""
    present = np.zeros(int(column.max()) + 2, dtype=bool)
    present[column + 1] = True
    present[0] = False
    return np.flatnonzero(present) - 1, np.where(column >= 0, np.cumsum(present, dtype=np.int32)[column + 1], 0)


def _lexicographic(columns: Sequence[NDArray[np.int32]], sizes: Sequence[int]) -> Ints:
    """The order of rows by their first column, then the second …; `sizes`: an upper bound of each column's values."""
    keys: list[Ints] = []
    room = 0
    for column, size in zip(columns, sizes, strict=True):
        room //= size
        if room:  # as many columns as fit go into one 63-bit number
            keys[-1] = keys[-1] * size + column
        else:
            keys.append(column.astype(np.int64))
            room = 2**62 // size
    return np.argsort(keys[0]) if len(keys) == 1 else np.lexsort(keys[::-1])


def _ragged(rows: Ints, values: Ints, n_rows: int) -> Ints:
    """Sorted (row, value) pairs as an array (n_rows, most), -1 after the end of shorter rows."""
    counts = np.bincount(rows, minlength=n_rows)
    out = np.full((n_rows, max(int(counts.max(initial=0)), 0)), -1, dtype=np.int64)
    out[rows, np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]] = values
    return out
