"""How alike two recommenders' lists are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rectune.bundle.recommender import Recommendation


@dataclass(frozen=True)
class Asked:
    """A line of an engine: a history, and what it listed after it, ids of real items or None, best first, each with its score where there are scores."""

    history: list[str]
    listed: list[str | None]
    scores: list[float]


@dataclass(frozen=True)
class Compared:
    """How alike lists are. `overlap`: of our first k items the share among theirs, mean; `first`: share of lists with our first item first; `tau`:
    Kendall's tau of the items that both list, mean of the lists that share two; `places`: by how many places shared items differ, mean; `scores`: by how much
    their scores differ, mean; `unreal`: share of what they list that is no item; `repeated`: share that stood in the list before. None: nothing to count."""

    lists: int
    k: int
    overlap: float
    first: float
    tau: float | None
    places: float | None
    scores: float | None
    unreal: float
    repeated: float


def compare(asked: Sequence[Asked], ours: Sequence[Sequence[Recommendation]], k: int) -> Compared:
    """Compare an engine's lists with ours, whole ones; `k`: how many of the first items `overlap` looks at.

    What is no item, or stood in the list before, is counted and left out of the others. Lists of ours that are empty are left out of `overlap` and `first`.
    """
    overlaps, firsts, taus, places, scores, unreal, repeated, total = [], [], [], [], [], 0, 0, 0
    for one, own in zip(asked, ours, strict=True):
        real = [item for item in one.listed if item is not None]
        theirs, mine = list(dict.fromkeys(real)), {item.item_id: item.score for item in own}
        total, unreal, repeated = (
            total + len(one.listed), unreal + len(one.listed) - len(real), repeated + len(real) - len(theirs),
        )  # fmt: skip
        first = list(mine)[:k]
        if first:
            overlaps.append(len(set(first) & set(theirs[:k])) / len(first))
            firsts.append(float(theirs[:1] == first[:1]))
        order = [place for place in map({item: at for at, item in enumerate(mine)}.get, theirs) if place is not None]
        if len(order) > 1:
            taus.append(kendall(order))
        places += [abs(at - theirs.index(item)) for at, item in enumerate(mine) if item in theirs]
        given = dict(zip(reversed(one.listed), reversed(one.scores), strict=False))  # of a repeated item the first
        scores += [abs(given[item] - score) for item, score in mine.items() if item in given]
    return Compared(
        len(asked), k, mean(overlaps) or 0.0, mean(firsts) or 0.0, mean(taus), mean(places), mean(scores), unreal / max(total, 1),
        repeated / max(total, 1),
    )  # fmt: skip


def kendall(order: Sequence[int]) -> float:
    """Kendall's tau of distinct numbers and their places: of all pairs the share that stands in order less the share that does not."""
    pairs = [(a < b) - (a > b) for at, a in enumerate(order) for b in order[at + 1 :]]
    return sum(pairs) / len(pairs)


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing."""
    return sum(values) / len(values) if values else None


def table(found: Compared) -> str:
    """A line a figure."""
    said = {
        "overlap": f"of our first {found.k} items are among their first {found.k}",
        "first": "of lists begin with our first item",
        "tau": "Kendall's tau of the items that both list",
        "places": "places between an item's two ranks, mean",
        "scores": "between an item's two scores, mean",
        "unreal": "of what they list is no item of the catalogue",
        "repeated": "of what they list stood in the list before",
    }
    figures = asdict(found)
    lines = [
        f"{name:<10}{'-' if figures[name] is None else f'{figures[name]:.4f}':>8}  {text}"
        for name, text in said.items()
    ]
    return "\n".join([f"{found.lists:,} lists", *lines])
