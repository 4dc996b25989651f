"""What a search step reads and makes: the trie on a device, prefixes, and their children."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from rectune.decoding.prior import PriorTable
from rectune.decoding.trie import Trie


class Children(NamedTuple):
    """What a step may go on with. `scores` (B, W, F), -inf where there is no child or it may not be listed or it was
    taken; children of beam w are the nodes from `start[w]` on; `slot` (B, W): where its own token stands."""

    scores: torch.Tensor
    start: torch.Tensor
    slot: torch.Tensor

    def nodes(self, places: torch.Tensor) -> torch.Tensor:
        """The nodes at flat places (B, k)."""
        wide = self.scores.shape[2]
        return self.start.gather(1, places // wide) + places % wide

    def slots(self, places: torch.Tensor) -> torch.Tensor:
        """The slots of their parents (B, k)."""
        return self.slot.gather(1, places // self.scores.shape[2])


class Beams(NamedTuple):
    """Prefixes of names: their node, their score (-inf: none), and the slot of the token before; each (B, W)."""

    node: torch.Tensor
    score: torch.Tensor
    parent: torch.Tensor


class Table:
    """A trie on the device of a model."""

    def __init__(self, trie: Trie, device: torch.device) -> None:
        self.trie = trie
        beyond = np.zeros(max(trie.fan_out), dtype=trie.codes.dtype)  # a step reads past the children of the last nodes
        self.codes = torch.from_numpy(np.concatenate([trie.codes, beyond])).to(device)
        self._n_codes = int(trie.codes.max()) + 1
        self.first = torch.from_numpy(trie.first).to(device)
        self.tokens = [torch.from_numpy(tokens).to(device) for tokens in trie.tokens]
        leaves = [trie.is_leaf(np.arange(a, b)) for a, b in pairwise(trie.levels)]
        self.has_leaves = [bool(level.any()) for level in leaves]
        self.has_inner = [not bool(level.all()) for level in leaves]

    @cached_property
    def prior(self) -> PriorTable:
        """What a prior over items needs."""
        return PriorTable(self.trie, self.first.device)

    def span(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """First child of each node, and how many there are; int64, any shape."""
        end = len(self.first) - 1
        start = self.first[nodes.clamp(max=end)].long()
        return start, self.first[(nodes + 1).clamp(max=end)].long() - start

    def of_children(self, logits: torch.Tensor, start: torch.Tensor, count: torch.Tensor, wide: int) -> torch.Tensor:
        """Pick from logits (B, W, codes of a level) those of each node's children, (B, W, wide), -inf beyond `count`."""
        rows, width, codes = logits.shape
        offset = torch.arange(wide, dtype=torch.int32, device=start.device)
        place = start.int()[..., None] + offset
        code = self.codes.index_select(0, place.view(-1)).view(place.shape)
        if codes < self._n_codes:  # what is read past the last node of a level may be a code of another level
            code = code.int().clamp_(max=codes - 1)
        row = torch.arange(rows * width, dtype=torch.int32, device=start.device).view(rows, width, 1) * codes
        found = logits.reshape(-1).index_select(0, (row + code).view(-1)).view(place.shape)
        return found.masked_fill_(offset >= count[..., None], -torch.inf)

    def forced(self, nodes: torch.Tensor, levels: int) -> torch.Tensor:
        """Whether there is but one item below each node; `levels` are left below them."""
        return self.span(self.only_leaf(nodes, levels))[1] == 0

    def only_leaf(self, nodes: torch.Tensor, levels: int) -> torch.Tensor:
        """Go down from each node as long as there is one child: to the leaf, where there is one item below."""
        for _ in range(levels):
            start, count = self.span(nodes)
            nodes = torch.where(count == 1, start, nodes)
        return nodes


def in_order(node: torch.Tensor, score: torch.Tensor, parent: torch.Tensor) -> Beams:
    """Beams in the order of their nodes, so that the place of a child is the order of ties; dead ones at the root."""
    node = node.masked_fill(score == -torch.inf, 0)
    order = node.argsort(dim=1, stable=True)
    return Beams(node.gather(1, order), score.gather(1, order), parent.gather(1, order))
