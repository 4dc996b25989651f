"""Items drawn from a model's distribution over the catalogue, by the search that also ranks: with or without replacement."""

from __future__ import annotations

import torch

from rectune.decoding.beam import Search
from rectune.decoding.noise import gumbel, uniform
from rectune.decoding.select import top
from rectune.decoding.table import Beams, Children, in_order

DIVERGED = "the model's scores are not numbers (NaN): its training diverged. Lower `learning_rate`."


def draw_independent(search: Search, *, temperature: float, seeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`search.beams` items for each row, no draw knowing of the others. Returns leaves and their log-probabilities, both (rows, beams).

    Each code is drawn among those that may follow, at `temperature`, by the row's seed, `seeds` (rows,). A prefix is forwarded once however often
    it was drawn.
    """
    table, shape, device = search.table, (search.rows, search.beams), search.lost.device
    node = torch.zeros(shape, dtype=torch.long, device=device)
    parent, logp = node - 1, torch.zeros(shape, device=device)
    column = torch.arange(search.beams, device=device).expand(shape)
    for level in range(search.depth):
        going = table.span(node)[1] > 0
        if not going.any():
            break
        beams = _distinct(node.masked_fill(~going, -1), parent) if level else _root(search)
        children = search.expand(beams, level)
        step = _normalised(children.scores, temperature)
        # Live beams stand in the order of their nodes, the others, at the root, before them.
        beam = torch.searchsorted(beams.node, node).clamp_(max=beams.node.shape[1] - 1)
        below = step.double().exp().cumsum(2)
        below = (below / below[..., -1:]).nan_to_num(1.0) + torch.arange(step.shape[1], device=device)[:, None]
        drawn = uniform(seeds, column + level * search.beams)
        place = torch.searchsorted(below.flatten(1), beam + drawn, right=True).clamp_(max=below[0].numel() - 1)
        parent = torch.where(going, children.slots(place), parent)
        node = torch.where(going, children.nodes(place), node)
        logp = logp + torch.where(going, step.flatten(1).gather(1, place), 0.0)
    return node, logp


def draw_without_replacement(
    search: Search, *, temperature: float, seeds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Distinct items for each row, in the order in which they would be drawn one after the other (Kool et al., 2019, "Stochastic beams
    and where to find them"). Returns leaves and log-probabilities, both (rows, beams - 1), -inf where there is no more item, and for
    each the log of the chance that it is among so many. What perturbs a prefix depends on it and its row's seed, `seeds` (rows,).

    The search is one beam wider than the lists: the perturbed score of the first item that is left out says how likely the others were to
    be taken (Kool et al., section 4.2).
    """
    table, width, device = search.table, search.beams, search.lost.device
    beams, logp = _root(search), torch.zeros((search.rows, 1), device=device)
    key = gumbel(seeds, beams.node)
    found = [torch.full((search.rows, 0), 0.0, device=device) for _ in range(3)]  # keys, log-probabilities, leaves
    for level in range(search.depth):
        children = search.expand(beams, level)
        steps = logp[..., None] + _normalised(children.scores, temperature)
        node = children.start[..., None] + torch.arange(steps.shape[2], device=device)
        keys = _under(steps + gumbel(seeds, node), key).flatten(1)
        places = top(keys.float(), width)
        key, logp, node = keys.gather(1, places), steps.flatten(1).gather(1, places), children.nodes(places)
        ends = table.span(node)[1] == 0
        found = _best(found, [key.masked_fill(~ends, -torch.inf), logp, node.double()], width)
        key = key.masked_fill(ends, -torch.inf)
        if not (key > -torch.inf).any():
            break
        beams, key, logp = _going(node, key, logp, children, places)
    key, logp, leaf = (torch.nn.functional.pad(x, (0, max(0, width - x.shape[1])), value=-torch.inf) for x in found)
    logp = logp.masked_fill(key == -torch.inf, -torch.inf)[:, :-1]
    within = torch.log(-torch.expm1(-torch.exp(logp - key[:, -1:]))).masked_fill(key[:, -1:] == -torch.inf, 0.0)
    return leaf[:, :-1].clamp(min=0).long(), logp.float(), within.float()


def _root(search: Search) -> Beams:
    root = torch.zeros((search.rows, 1), dtype=torch.long, device=search.lost.device)
    return Beams(root, root.float(), root - 1)


def _distinct(node: torch.Tensor, parent: torch.Tensor) -> Beams:
    """Each node of a row once, and none below 0."""
    order = node.argsort(dim=1, stable=True)
    node, parent = node.gather(1, order), parent.gather(1, order)
    first = torch.ones_like(node, dtype=torch.bool)
    first[:, 1:] = node[:, 1:] != node[:, :-1]
    return in_order(
        node, torch.zeros(node.shape, device=node.device).masked_fill(~first | (node < 0), -torch.inf), parent
    )


def _going(
    node: torch.Tensor, key: torch.Tensor, logp: torch.Tensor, children: Children, places: torch.Tensor
) -> tuple[Beams, torch.Tensor, torch.Tensor]:
    """The prefixes that go on, in the order of their nodes, with their keys and log-probabilities."""
    live = torch.zeros_like(logp).masked_fill(key == -torch.inf, -torch.inf)
    order = node.masked_fill(key == -torch.inf, 0).argsort(dim=1, stable=True)
    return in_order(node, live, children.slots(places)), key.gather(1, order), logp.gather(1, order)


def _normalised(scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probabilities of the children of each node that may be listed, (B, W, F), -inf for the others. Raises ValueError for NaN."""
    if torch.isnan(scores).any():
        raise ValueError(DIVERGED)
    return (scores / temperature).log_softmax(2).nan_to_num(-torch.inf, neginf=-torch.inf)


def _under(keys: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """Perturbed scores (B, W, F) given that the largest of each node is its own, `most` (B, W); stable as in appendix B.3 of Kool et al."""
    most = most[..., None].double()
    largest = keys.amax(2, keepdim=True)
    shift = most - keys + torch.log1p(-torch.exp((keys - largest).clamp(max=0)))
    found = most - shift.clamp(min=0) - torch.log1p(torch.exp(-shift.abs()))
    return torch.where((keys > -torch.inf) & (most > -torch.inf), found, -torch.inf)


def _best(one: list[torch.Tensor], other: list[torch.Tensor], width: int) -> list[torch.Tensor]:
    """The `width` columns of two sets with the highest keys, which come first, best first."""
    both = [torch.cat([a.double(), b.double()], 1) for a, b in zip(one, other, strict=True)]
    order = both[0].argsort(dim=1, descending=True, stable=True)[:, :width]
    return [column.gather(1, order) for column in both]
