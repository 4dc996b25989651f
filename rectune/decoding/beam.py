"""Constrained beam search over a prompt tree, with a certificate for every list."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rectune.decoding.body import Body
from rectune.decoding.encoded_prompts import EncodedPrompts
from rectune.decoding.prior import listed_items
from rectune.decoding.prompt_tree import PromptTree
from rectune.decoding.ranking import Ranking
from rectune.decoding.select import merge, top
from rectune.decoding.shelf import Shelf
from rectune.decoding.table import Beams, Children, Table, in_order
from rectune.decoding.trie import Trie

Scores = Literal["full", "catalogue"]


class Search:
    """The search for one batch, in which all nodes may be entered that are `alive` (nodes,), or None. Scores are sums of log-probabilities, in float32; with a prior, of the model's and the
    prior's (a log-linear mix: at a node, log p(code | prefix) + log prior(items below) - log prior(items below its parent))."""

    def __init__(
        self, body: Body, table: Table, tree: PromptTree | EncodedPrompts, *, beams: int, scores: Scores, shelf: Shelf,
        alive: NDArray[np.bool_] | None,
    ) -> None:  # fmt: skip
        self._head, self.table, self.tree, self.catalogue = body.head, table, tree, scores == "catalogue"
        self.beams, self.depth = beams, table.trie.depth
        self.rows, device = len(tree.last), tree.last.device
        self._alive = None if alive is None else torch.from_numpy(alive).to(device)
        trie = table.trie
        self.hidden = None if shelf.hidden is None else _marks(trie, trie.emptied(shelf.hidden, alive), device)
        self.only = None if shelf.only is None else _marks(trie, trie.paths(shelf.only), device)
        self.mass = self._masses(shelf)
        self.leaf = torch.zeros((self.rows, beams), dtype=torch.long, device=device)  # the best items, best first,
        self.score = torch.full((self.rows, beams), -torch.inf, device=device)  # and their scores, -inf for none
        self.lost = torch.full((self.rows,), -torch.inf, device=device)  # the best score that was left out
        self.left: list[Children] = []  # for each level from 1, what the beam left there
        self.expanded = torch.zeros(self.rows, dtype=torch.long, device=device)

    def _masses(self, shelf: Shelf) -> torch.Tensor | None:
        """The prior's masses of all nodes, (B, nodes), or None."""
        if shelf.prior is None:
            return None
        device = self.tree.last.device
        listed = listed_items(shelf, self.rows, self.table.trie.n_items)
        scores = torch.from_numpy(shelf.prior(np.arange(self.rows))).to(device)
        return self.table.prior.node_masses(scores, torch.from_numpy(listed).to(device))

    # ------------------------------------------------------------------------------------------------------ the beam

    def run(self, *, keep: bool = False) -> None:
        """Search with a beam, as `generate` does. `keep`: remember what was left out, for `exact.complete`."""
        root = torch.zeros((self.rows, 1), dtype=torch.long, device=self.lost.device)
        beams = Beams(root, root.float(), root - 1)
        for level in range(self.depth):
            children = self.expand(beams, level)
            beams = self._advance(children, level + 1)
            if keep:
                self.left.append(children)
            if self.table.has_leaves[level + 1]:
                beams = self._still_possible(beams)
                if not (beams.score > -torch.inf).any():
                    break

    def found(self) -> Ranking:
        """The lists as they stand; `row` counts the rows of the batch."""
        leaf = self.leaf.masked_fill(self.score == -torch.inf, -1).cpu().numpy()
        exact = self.lost <= self.worst()
        return Ranking(
            np.arange(self.rows), self.table.trie.item_of(leaf), self.score.cpu().numpy(), exact.cpu().numpy()
        )

    def _advance(self, children: Children, level: int) -> Beams:
        """Finish the leaves among the best children, and go on with the best of the others; marks them as taken."""
        flat = children.scores.flatten(1)
        leaf, inner = self.table.has_leaves[level], self.table.has_inner[level]
        if leaf and inner:
            return self._advance_mixed(children, level)
        places = top(flat, self.beams + 1)
        scores, nodes = flat.gather(1, places), children.nodes(places)
        if flat.shape[1] > self.beams:
            self.lost = torch.maximum(self.lost, scores[:, self.beams])
        places, scores, nodes = (x[:, : self.beams] for x in (places, scores, nodes))
        parents = children.slots(places)
        flat.scatter_(1, places, -torch.inf)
        if leaf:
            self.score, self.leaf = merge(self.score, self.leaf, scores, nodes, self.beams)
            scores = torch.full_like(scores, -torch.inf)
        return in_order(nodes, scores, parents)

    def _advance_mixed(self, children: Children, level: int) -> Beams:
        """The same where some children are leaves. Like `generate`, a leaf counts only if it is among the best of all."""
        flat = children.scores.flatten(1)
        places = top(flat, self.beams)
        scores, nodes = flat.gather(1, places), children.nodes(places)
        ends = self.table.span(nodes)[1] == 0
        self.score, self.leaf = merge(self.score, self.leaf, scores.masked_fill(~ends, -torch.inf), nodes, self.beams)
        flat.scatter_(1, places, torch.where(ends, -torch.inf, scores))
        every = torch.arange(flat.shape[1], device=flat.device).expand(self.rows, -1)
        leaves = self.table.span(children.nodes(every))[1] == 0
        going = flat.masked_fill(leaves, -torch.inf)
        places = top(going, self.beams)
        scores, nodes, parents = going.gather(1, places), children.nodes(places), children.slots(places)
        flat.scatter_(1, places, torch.where(scores == -torch.inf, flat.gather(1, places), -torch.inf))
        self.lost = torch.maximum(self.lost, flat.amax(1))
        return in_order(nodes, scores, parents)

    def _still_possible(self, beams: Beams) -> Beams:
        """Drop beams that can no longer make their list: a sum of log-probabilities only falls."""
        hopeless = beams.score < self.worst()[:, None]
        return in_order(beams.node, beams.score.masked_fill(hopeless, -torch.inf), beams.parent)

    def worst(self) -> torch.Tensor:
        """The score of the last item of each list, -inf where it is short."""
        return self.score[:, -1]

    # ------------------------------------------------------------------------------------------------------ one step

    def expand(self, beams: Beams, level: int) -> Children:
        """Score the children of `beams`, which stand at `level`. Codes that are forced need no forward pass."""
        start, count = self.table.span(beams.node)
        alive = beams.score > -torch.inf
        if level == 0:
            logp, slot = self._log_probabilities(self.tree.last[:, None], start, count, level), beams.parent
        else:
            ask = alive & ~self.table.forced(beams.node, self.depth - level) if self.catalogue else alive
            logp, slot = self._forward(beams, ask, start, count, level)
        scores = beams.score[..., None] + logp
        if self.mass is not None:
            scores += self._prior_steps(self.mass, beams.node, start, scores.shape[2])
        self._limit(scores, beams.node, start, level + 1)
        return Children(scores, start, slot)

    @staticmethod
    def _prior_steps(mass: torch.Tensor, node: torch.Tensor, start: torch.Tensor, wide: int) -> torch.Tensor:
        """What the prior adds on the way from each node to its children, (B, W, F), never above 0."""
        child = (start[..., None] + torch.arange(wide, device=start.device)).clamp_(max=mass.shape[1] - 1)
        below = mass.gather(1, child.flatten(1)).view(child.shape)
        step = below - mass.gather(1, node)[..., None]
        return step.masked_fill_(below == -torch.inf, -torch.inf).clamp_(max=0.0)

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
        tokens = self.table.tokens[level - 1][
            self.table.codes[node].long().clamp(max=len(self.table.tokens[level - 1]) - 1)
        ]
        hidden, slots = self.tree.extend(tokens, beams.parent.gather(1, chosen), level, sum(asked[0]))
        new = self._log_probabilities(hidden, start.gather(1, chosen), count.gather(1, chosen) * used, level, wide)
        new = torch.where(used[..., None], new, logp.gather(1, chosen[..., None].expand(-1, -1, wide)))
        logp.scatter_(1, chosen[..., None].expand(-1, -1, wide), new)
        return logp, torch.full_like(beams.node, -1).scatter(1, chosen, slots)

    def _log_probabilities(
        self, hidden: torch.Tensor, start: torch.Tensor, count: torch.Tensor, level: int, wide: int | None = None
    ) -> torch.Tensor:
        """Log-probabilities of the children of each node, (B, W, F), -inf beyond their number."""
        wide = self.table.trie.fan_out[level] if wide is None else wide
        logits = self.table.of_children(self._head.logits(hidden, self.table.tokens[level]), start, count, wide)
        if self.catalogue:
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
        for marks, out in ((self.hidden, True), (self.only, False)):
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


def _marks(
    trie: Trie, levels: list[NDArray[np.int64]], device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Nodes and their parents on the device, level by level; parent -1 for padding."""
    out = []
    for nodes in levels:
        parents = np.where(nodes < 0, -1, trie.parent_of(np.maximum(nodes, 1)))
        out.append((torch.from_numpy(nodes).to(device), torch.from_numpy(parents).to(device)))
    return out
