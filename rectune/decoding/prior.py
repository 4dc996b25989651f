"""A prior over items inside the search: how much it gives to the items below each node of the trie."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from rectune.decoding.shelf import Shelf
from rectune.decoding.trie import Trie

_LOW = -1e30  # stands for -inf where a difference of two infinities would be no number


class PriorTable:
    """What `node_masses` needs of a trie, on a device."""

    def __init__(self, trie: Trie, device: torch.device) -> None:
        self.n_nodes, self.n_items = trie.levels[-1], trie.n_items
        nodes = np.arange(self.n_nodes)
        leaves = nodes[trie.is_leaf(nodes)]
        self.leaf = torch.from_numpy(leaves).to(device)
        self.item = torch.from_numpy(trie.item_of(leaves).astype(np.int64)).to(device)
        self.levels = [int(bound) for bound in trie.levels]
        self.parent = torch.from_numpy(np.concatenate([[0], trie.parent_of(nodes[1:])]).astype(np.int64)).to(device)

    def node_masses(self, scores: torch.Tensor, listed: torch.Tensor) -> torch.Tensor:
        """log of the sum of exp(score) over the items below each node, (rows, nodes), relative to the sum over all items.

        `scores` (rows, items) float32; items that are not `listed` (rows, items) count for the root only. A node without a
        listed item below it has -inf. Down a path the numbers only fall.
        """
        total = scores.logsumexp(1, keepdim=True)
        mass = torch.full((len(scores), self.n_nodes), -torch.inf, device=scores.device)
        mass[:, self.leaf] = (scores - total).masked_fill(~listed, -torch.inf)[:, self.item]
        for begin, end in reversed(list(pairwise(self.levels[1:]))):
            below, parent = mass[:, begin:end], self.parent[begin:end]
            first, width = int(parent[0]), int(parent[-1] - parent[0]) + 1
            place = (parent - first).expand(len(scores), -1)
            most = torch.full((len(scores), width), _LOW, device=scores.device).scatter_reduce_(1, place, below, "amax")
            summed = torch.zeros_like(most).scatter_add_(1, place, (below - most.gather(1, place)).exp())
            inner = mass[:, first : first + width]
            has = torch.zeros(width, dtype=torch.bool, device=scores.device).index_fill_(0, parent - first, True)
            inner.copy_(torch.where(has, summed.log() + most, inner))
        mass[:, 0] = 0.0
        return mass


def listed_items(shelf: Shelf, rows: int, n_items: int) -> NDArray[np.bool_]:
    """Which items each row may list, (rows, items)."""
    listed = np.ones((rows, n_items), dtype=bool)
    if shelf.allowed is not None:
        listed &= shelf.allowed
    for rule, keep in ((shelf.only, True), (shelf.hidden, False)):
        if rule is None:
            continue
        named = np.zeros((rows, n_items), dtype=bool)
        for row, items in enumerate(rule):
            named[row, list(items)] = True
        listed &= named if keep else ~named
    return listed
