"""Exact lists: after a beam, expand what was left out and could still be listed."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from rectune.decoding.beam import Search
from rectune.decoding.select import merge, top
from rectune.decoding.table import Beams, Children, in_order

_TOGETHER = 16  # rows that are completed together
_WAVE = 128  # prefixes of a row that one pass forwards
_STATE = ("leaf", "score", "lost", "expanded")


def complete(search: Search, *, budget: int) -> None:
    """After `search.run(keep=True)`: expand whatever scores above the last item of its list, at most `budget` more nodes
    a row. Lists are then exact, but for rows that ran out of nodes.

    A sum of log-probabilities only falls, so nothing else can be listed. What was left below the first level comes
    first: the last item of a list rises early that way.
    """
    search.lost.fill_(-torch.inf)
    spent = search.expanded + budget
    for left in (range(2, len(search.left) + 1), range(1, 2)):
        pending = [(search.left[level - 1].scores > search.worst()[:, None, None]).sum((1, 2)) for level in left]
        if not pending:
            continue
        order = pending[0].argsort(stable=True)
        order = order[torch.stack(pending).sum(0)[order] > 0]
        for at in range(0, len(order), _TOGETHER):  # as much left to do as each other: less padding
            rows = order[at : at + _TOGETHER]
            part = _part(search, rows)
            _sweep(part, left, spent[rows])
            for name in _STATE:
                getattr(search, name)[rows] = getattr(part, name)


def _part(search: Search, rows: torch.Tensor) -> Search:
    """The search of some rows only."""
    part = copy.copy(search)
    part.rows, part.tree = len(rows), search.tree.take(rows)
    part.left = [Children(*(x[rows] for x in step)) for step in search.left]
    for name in ("hidden", "only"):
        marks = getattr(search, name)
        setattr(part, name, marks and [(nodes[rows], parents[rows]) for nodes, parents in marks])
    part.mass = None if search.mass is None else search.mass[rows]
    for name in _STATE:
        setattr(part, name, getattr(search, name)[rows])
    return part


def _sweep(search: Search, left: range, spent: torch.Tensor) -> None:
    """Go down from what was left at some levels; rows that expanded as many nodes as `spent` says stop."""
    pending: list[Children] = []
    for level in range(left.start, search.depth + 1):
        pending += [search.left[level - 1]] if level in left else []
        if not pending:
            return
        pool, pending = _pool(pending), []
        _finish_leaves(search, pool, level)
        while (wave := _wave(search, pool, search.expanded >= spent)) is not None:
            pending.append(search.expand(wave, level))


def _finish_leaves(search: Search, pool: Beams, level: int) -> None:
    """Finish what is a leaf, or in `catalogue` scores has but one leaf below it, and take it out of the pool."""
    if not search.catalogue and not search.table.has_leaves[level]:
        return
    below = search.depth - level if search.catalogue else 0
    ends = search.table.forced(pool.node, below)
    scores = pool.score.masked_fill(~ends, -torch.inf)
    places = top(scores, search.beams)
    leaf = search.table.only_leaf(pool.node.gather(1, places), below)
    search.score, search.leaf = merge(search.score, search.leaf, scores.gather(1, places), leaf, search.beams)
    pool.score.masked_fill_(ends, -torch.inf)


def _wave(search: Search, pool: Beams, spent: torch.Tensor) -> Beams | None:
    """Take the best prefixes out of the pool that can still matter, `_WAVE` at most."""
    hopeless = pool.score <= search.worst()[:, None]
    pool.score.masked_fill_(hopeless, -torch.inf)
    search.lost = torch.maximum(search.lost, pool.score.amax(1).masked_fill(~spent, -torch.inf))
    pool.score.masked_fill_(spent[:, None], -torch.inf)
    width = int((pool.score > -torch.inf).sum(1).max())
    if width == 0:
        return None
    places = top(pool.score, min(width, _WAVE))
    wave = Beams(*(x.gather(1, places) for x in pool))
    pool.score.scatter_(1, places, -torch.inf)
    return in_order(wave.node, wave.score, wave.parent)


def _pool(children: Sequence[Children]) -> Beams:
    """All children of some steps as prefixes in one row each."""
    parts = []
    for step in children:
        places = torch.arange(step.scores[0].numel(), device=step.scores.device).expand(len(step.scores), -1)
        parts.append(Beams(step.nodes(places), step.scores.flatten(1), step.slots(places)))
    return Beams(*(torch.cat(columns, 1) for columns in zip(*parts, strict=True)))
