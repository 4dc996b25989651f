"""Constrained beam search over a prompt tree, with a certificate, and the exact search that completes it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rectune.decoding.body import Body
from rectune.decoding.prompt_tree import EncodedPrompts, PromptTree
from rectune.decoding.select import merge, top
from rectune.decoding.trie import Trie

_TOGETHER = 16  # rows that are completed together
_WAVE = 128  # prefixes of a row that one pass of the exact search forwards

Scores = Literal["full", "catalogue"]


@dataclass(frozen=True)
class Found:
    """Lists of a batch: `items` (rows, beams) int32, best first, -1 where a list is short; `scores` float32, -inf there;
    `exact` (rows,): whether nothing that was left out scores above the last item."""

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    exact: NDArray[np.bool_]


class Limits(NamedTuple):
    """Which items a batch may list. `alive`: (nodes,) bool for all rows, or None; `hidden` and `only`: items of each
    row that must not be listed, and items of each row that alone may be, or None."""

    alive: NDArray[np.bool_] | None = None
    hidden: Sequence[Sequence[int]] | None = None
    only: Sequence[Sequence[int]] | None = None


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
        counts = np.diff(trie.first)
        leaf = np.concatenate([counts == 0, np.ones(len(trie.codes) - len(counts), dtype=bool)])
        spans = list(zip(trie.levels[:-1], trie.levels[1:], strict=True))
        self.has_leaves = [bool(leaf[a:b].any()) for a, b in spans]
        self.has_inner = [not bool(leaf[a:b].all()) for a, b in spans]

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


class Search:
    """The search for one batch. Scores are sums of log-probabilities, in float32."""

    def __init__(
        self, body: Body, table: Table, tree: PromptTree | EncodedPrompts, *, beams: int, scores: Scores, limits: Limits
    ) -> None:
        self._head, self._table, self._tree, self._catalogue = body.head, table, tree, scores == "catalogue"
        self._beams, self._depth = beams, table.trie.depth
        self._rows, device = len(tree.last), tree.last.device
        self._alive = None if limits.alive is None else torch.from_numpy(limits.alive).to(device)
        trie = table.trie
        self._hidden = (
            None if limits.hidden is None else _marks(trie, trie.emptied(limits.hidden, limits.alive), device)
        )
        self._only = None if limits.only is None else _marks(trie, trie.paths(limits.only), device)
        self._leaf = torch.zeros((self._rows, beams), dtype=torch.long, device=device)  # the best items, best first,
        self._score = torch.full((self._rows, beams), -torch.inf, device=device)  # and their scores, -inf for none
        self._lost = torch.full((self._rows,), -torch.inf, device=device)  # the best score that was left out
        self._left: list[Children] = []  # for each level from 1, what the beam left there
        self.expanded = torch.zeros(self._rows, dtype=torch.long, device=device)

    # ------------------------------------------------------------------------------------------------------ the beam

    def run(self, *, keep: bool = False) -> None:
        """Search with a beam, as `generate` does. `keep`: remember what was left out, for `complete`."""
        root = torch.zeros((self._rows, 1), dtype=torch.long, device=self._lost.device)
        beams = Beams(root, root.float(), root - 1)
        for level in range(self._depth):
            children = self._expand(beams, level)
            beams = self._advance(children, level + 1)
            if keep:
                self._left.append(children)
            if self._table.has_leaves[level + 1]:
                beams = self._still_possible(beams)
                if not (beams.score > -torch.inf).any():
                    break

    def found(self) -> Found:
        """The lists as they stand."""
        leaf = self._leaf.masked_fill(self._score == -torch.inf, -1).cpu().numpy()
        exact = self._lost <= self._worst()
        return Found(self._table.trie.item_of(leaf), self._score.cpu().numpy(), exact.cpu().numpy())

    def _advance(self, children: Children, level: int) -> Beams:
        """Finish the leaves among the best children, and go on with the best of the others; marks them as taken."""
        flat = children.scores.flatten(1)
        leaf, inner = self._table.has_leaves[level], self._table.has_inner[level]
        if leaf and inner:
            return self._advance_mixed(children, level)
        places = top(flat, self._beams + 1)
        scores, nodes = flat.gather(1, places), children.nodes(places)
        if flat.shape[1] > self._beams:
            self._lost = torch.maximum(self._lost, scores[:, self._beams])
        places, scores, nodes = (x[:, : self._beams] for x in (places, scores, nodes))
        parents = children.slots(places)
        flat.scatter_(1, places, -torch.inf)
        if leaf:
            self._score, self._leaf = merge(self._score, self._leaf, scores, nodes, self._beams)
            scores = torch.full_like(scores, -torch.inf)
        return _in_order(nodes, scores, parents)

    def _advance_mixed(self, children: Children, level: int) -> Beams:
        """The same where some children are leaves. Like `generate`, a leaf counts only if it is among the best of all."""
        flat = children.scores.flatten(1)
        places = top(flat, self._beams)
        scores, nodes = flat.gather(1, places), children.nodes(places)
        ends = self._table.span(nodes)[1] == 0
        self._score, self._leaf = merge(
            self._score, self._leaf, scores.masked_fill(~ends, -torch.inf), nodes, self._beams
        )
        flat.scatter_(1, places, torch.where(ends, -torch.inf, scores))
        every = torch.arange(flat.shape[1], device=flat.device).expand(self._rows, -1)
        leaves = self._table.span(children.nodes(every))[1] == 0
        going = flat.masked_fill(leaves, -torch.inf)
        places = top(going, self._beams)
        scores, nodes, parents = going.gather(1, places), children.nodes(places), children.slots(places)
        flat.scatter_(1, places, torch.where(scores == -torch.inf, flat.gather(1, places), -torch.inf))
        self._lost = torch.maximum(self._lost, flat.amax(1))
        return _in_order(nodes, scores, parents)

    def _still_possible(self, beams: Beams) -> Beams:
        """Drop beams that can no longer make their list: a sum of log-probabilities only falls."""
        hopeless = beams.score < self._worst()[:, None]
        return beams._replace(score=beams.score.masked_fill(hopeless, -torch.inf))

    def _worst(self) -> torch.Tensor:
        """The score of the last item of each list, -inf where it is short."""
        return self._score[:, -1]

    # ------------------------------------------------------------------------------------------------------ one step

    def _expand(self, beams: Beams, level: int) -> Children:
        """Score the children of `beams`, which stand at `level`. Codes that are forced need no forward pass."""
        start, count = self._table.span(beams.node)
        alive = beams.score > -torch.inf
        if level == 0:
            logp, slot = self._log_probabilities(self._tree.last[:, None], start, count, level), beams.parent
        else:
            ask = alive & ~self._table.forced(beams.node, self._depth - level) if self._catalogue else alive
            logp, slot = self._forward(beams, ask, start, count, level)
        scores = beams.score[..., None] + logp
        self._limit(scores, beams.node, start, level + 1)
        return Children(scores, start, slot)

    def _forward(
        self, beams: Beams, ask: torch.Tensor, start: torch.Tensor, count: torch.Tensor, level: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward the tokens of the beams that `ask`; the others have one child, of probability 1."""
        needed, wide = ask.sum(1), (count * ask).amax(1)
        asked = torch.stack([needed, wide]).tolist()  # the one wait for the device in a step
        most, wide = max(asked[0]), max(1, *asked[1])
        self.expanded += needed
        logp = torch.full((*ask.shape, wide), -torch.inf, device=ask.device)
        logp[..., 0].masked_fill_(beams.score > -torch.inf, 0.0)
        if most == 0:
            return logp, torch.full_like(beams.node, -1)
        chosen = ask.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        node, used = beams.node.gather(1, chosen), ask.gather(1, chosen)
        tokens = self._table.tokens[level - 1][
            self._table.codes[node].long().clamp(max=len(self._table.tokens[level - 1]) - 1)
        ]
        hidden, slots = self._tree.extend(tokens, beams.parent.gather(1, chosen), level, sum(asked[0]))
        new = self._log_probabilities(hidden, start.gather(1, chosen), count.gather(1, chosen) * used, level, wide)
        new = torch.where(used[..., None], new, logp.gather(1, chosen[..., None].expand(-1, -1, wide)))
        logp.scatter_(1, chosen[..., None].expand(-1, -1, wide), new)
        return logp, torch.full_like(beams.node, -1).scatter(1, chosen, slots)

    def _log_probabilities(
        self, hidden: torch.Tensor, start: torch.Tensor, count: torch.Tensor, level: int, wide: int | None = None
    ) -> torch.Tensor:
        """Log-probabilities of the children of each node, (B, W, F), -inf beyond their number."""
        wide = self._table.trie.fan_out[level] if wide is None else wide
        logits = self._table.of_children(self._head.logits(hidden, self._table.tokens[level]), start, count, wide)
        if self._catalogue:
            total = logits.logsumexp(2).clamp_(min=torch.finfo(torch.float32).min)  # -inf where there are no children
        else:
            total = self._head.log_normaliser(hidden)
        # Rounding must not lift a log-probability above 0: a sum that only falls is what the certificate rests on.
        return (logits - total[..., None]).clamp_(max=0.0)

    def _limit(self, scores: torch.Tensor, node: torch.Tensor, start: torch.Tensor, level: int) -> None:
        """Take out children that may not be listed."""
        rows, width, wide = scores.shape
        if self._alive is not None:
            child = start[..., None] + torch.arange(wide, device=start.device)
            scores.masked_fill_(~self._alive[child.clamp(max=len(self._alive) - 1)], -torch.inf)
        for marks, out in ((self._hidden, True), (self._only, False)):
            if marks is None:
                continue
            nodes, parents = marks[level - 1]
            match = parents[:, :, None] == node[:, None, :]  # (B, marks, W)
            beam = match.int().argmax(2)
            place = beam * wide + nodes - start.gather(1, beam)
            place = torch.where(match.any(2), place, width * wide)  # a mark below no beam goes to a place of its own
            marked = torch.zeros((rows, width * wide + 1), dtype=torch.bool, device=scores.device).scatter_(
                1, place, True
            )
            marked = marked[:, :-1].view_as(scores)
            scores.masked_fill_(marked if out else ~marked, -torch.inf)

    # ---------------------------------------------------------------------------------------------------- exact lists

    def complete(self, *, budget: int) -> None:
        """After `run(keep=True)`: expand whatever was left out and scores above the last item of its list, at most
        `budget` more nodes a row. Lists are then exact, but for rows that ran out of nodes.

        What was left below the first level comes first: the last item of a list rises early that way.
        """
        self._lost.fill_(-torch.inf)
        spent = self.expanded + budget
        for left in (range(2, len(self._left) + 1), range(1, 2)):
            pending = [(self._left[level - 1].scores > self._worst()[:, None, None]).sum((1, 2)) for level in left]
            if not pending:
                continue
            first, every = pending[0], torch.stack(pending).sum(0)
            order = first.argsort(stable=True)
            order = order[every[order] > 0]
            for at in range(0, len(order), _TOGETHER):  # as much left to do as each other: less padding
                rows = order[at : at + _TOGETHER]
                part = self._part(rows)
                part._sweep(left, spent[rows])
                for name in ("_leaf", "_score", "_lost", "expanded"):
                    getattr(self, name)[rows] = getattr(part, name)

    def _part(self, rows: torch.Tensor) -> Search:
        """The search of some rows only."""
        part = copy.copy(self)
        part._rows, part._tree = len(rows), self._tree.take(rows)
        part._left = [Children(*(x[rows] for x in step)) for step in self._left]
        for name in ("_hidden", "_only"):
            marks = getattr(self, name)
            setattr(part, name, marks and [(nodes[rows], parents[rows]) for nodes, parents in marks])
        for name in ("_leaf", "_score", "_lost", "expanded"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def _sweep(self, left: range, spent: torch.Tensor) -> None:
        """Go down from what was left at some levels; rows that expanded as many nodes as `spent` says stop."""
        pending: list[Children] = []
        for level in range(left.start, self._depth + 1):
            pending += [self._left[level - 1]] if level in left else []
            if not pending:
                return
            pool, pending = _pool(pending), []
            self._finish_leaves(pool, level)
            while (wave := self._wave(pool, self.expanded >= spent)) is not None:
                pending.append(self._expand(wave, level))

    def _finish_leaves(self, pool: Beams, level: int) -> None:
        """Finish what is a leaf, or in `catalogue` scores has but one leaf below it, and take it out of the pool."""
        if not self._catalogue and not self._table.has_leaves[level]:
            return
        ends = self._table.span(pool.node)[1] == 0
        if self._catalogue:
            ends = self._table.forced(pool.node, self._depth - level)
        scores = pool.score.masked_fill(~ends, -torch.inf)
        places = top(scores, self._beams)
        leaf = self._table.only_leaf(pool.node.gather(1, places), self._depth - level)
        self._score, self._leaf = merge(self._score, self._leaf, scores.gather(1, places), leaf, self._beams)
        pool.score.masked_fill_(ends, -torch.inf)

    def _wave(self, pool: Beams, spent: torch.Tensor) -> Beams | None:
        """Take the best prefixes out of the pool that can still matter, `_WAVE` at most."""
        hopeless = pool.score <= self._worst()[:, None]
        pool.score.masked_fill_(hopeless, -torch.inf)
        self._lost = torch.maximum(self._lost, pool.score.amax(1).masked_fill(~spent, -torch.inf))
        pool.score.masked_fill_(spent[:, None], -torch.inf)
        width = int((pool.score > -torch.inf).sum(1).max())
        if width == 0:
            return None
        places = top(pool.score, min(width, _WAVE))
        wave = Beams(*(x.gather(1, places) for x in pool))
        pool.score.scatter_(1, places, -torch.inf)
        return _in_order(wave.node, wave.score, wave.parent)


def _marks(
    trie: Trie, levels: list[NDArray[np.int64]], device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Nodes and their parents on the device, level by level; parent -1 for padding."""
    out = []
    for nodes in levels:
        parents = np.where(nodes < 0, -1, trie.parent_of(np.maximum(nodes, 1)))
        out.append((torch.from_numpy(nodes).to(device), torch.from_numpy(parents).to(device)))
    return out


def _in_order(node: torch.Tensor, score: torch.Tensor, parent: torch.Tensor) -> Beams:
    """Beams in the order of their nodes, so that the place of a child is the order of ties; dead ones at the root."""
    node = node.masked_fill(score == -torch.inf, 0)
    order = node.argsort(dim=1, stable=True)
    return Beams(node.gather(1, order), score.gather(1, order), parent.gather(1, order))


def _pool(children: Sequence[Children]) -> Beams:
    """All children of some steps as prefixes in one row each."""
    parts = []
    for step in children:
        places = torch.arange(step.scores[0].numel(), device=step.scores.device).expand(len(step.scores), -1)
        parts.append(Beams(step.nodes(places), step.scores.flatten(1), step.slots(places)))
    return Beams(*(torch.cat(columns, 1) for columns in zip(*parts, strict=True)))
