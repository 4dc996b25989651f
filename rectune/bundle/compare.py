"""Lists of an inference engine beside ours: `python -m rectune.bundle.compare LISTS BUNDLE`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rectune.bundle.files import plain_name
from rectune.bundle.recommender import Recommendation, Recommender
from rectune.runtime.text_files import read_json_lines
from rectune.tasks.asked_histories import event_less
from rectune.tasks.views import ItemViews


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


def read_lists(file: Path, names: dict[Any, str]) -> list[Asked]:
    """Read JSON lines {"items": [ID, …], "listed": […], "scores": […]}; `names`: what an item may be called -> its id. Raises ValueError naming the line."""
    asked = []
    for number, row in read_json_lines(file):
        history, listed, scores = row.get("items"), row.get("listed"), row.get("scores", [])
        ids = isinstance(history, list) and all(isinstance(item, str) for item in history)
        if not ids or not isinstance(listed, list) or not all(isinstance(one, str) or _is_ids(one) for one in listed):
            raise ValueError(
                f'{file.name}:{number}: a line must be {{"items": [ID, …], "listed": [ID, name or list of token ids, …]}}.'
            )
        if not isinstance(scores, list) or len(scores) not in (0, len(listed)) or not all(map(_is_score, scores)):
            raise ValueError(f"{file.name}:{number}: `scores` must be a number for each of the {len(listed)} listed.")
        found = [names.get(one if isinstance(one, str) else tuple(one)) for one in listed]
        asked.append(Asked(history, found, [float(score) for score in scores]))
    if not asked:
        raise ValueError(f"{file.name}: the file holds no list.")
    return asked


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def names_of(recommender: Recommender) -> dict[Any, str]:
    """What an item may be called -> its id: the id, its name as text, the ids of its tokens with an end token and without."""
    bundle = recommender.bundle
    if bundle.kind != "item":
        raise ValueError(f"{bundle.name}: this model answers about one item; it has no lists to compare with.")
    view = ItemViews(event_less(bundle.items), bundle.index)
    names: dict[Any, str] = {}
    ids = bundle.items["item_id"].to_list()
    for item, item_id in enumerate(ids):
        seen = view(item)
        said = bundle.template.completion(bundle.rank.wording, {"target": seen})
        for end in (True, False):
            names[tuple(bundle.encoder.completion_ids(said, end=end))] = item_id
        names[plain_name(bundle.index, item, seen)] = item_id
    return {**names, **dict(zip(ids, ids, strict=True))}


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


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print; returns the exit code. Errors of the user are one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m rectune.bundle.compare", description="Compare the lists of an inference engine with ours.", allow_abbrev=False
    )  # fmt: skip
    parser.add_argument("lists", type=Path, help='JSON lines: {"items": [ID, …], "listed": [ID, name or token ids, …]}')
    parser.add_argument("bundle", help="an exported folder, a run folder, or a repository of the Hub (USER/REPO)")
    parser.add_argument(
        "--k", type=int, default=None, help="how many items are compared (default: as many as are searched)"
    )
    parser.add_argument("--prior", action="store_true", help="rank with our prior, which no engine adds")
    parser.add_argument("--hide-seen", action="store_true", help="leave items of a history out of both lists")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    try:
        found = compared(args.lists, args.bundle, args.k, prior=args.prior, hide_seen=args.hide_seen)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(found)) if args.json else table(found))
    return 0


def compared(
    lists: Path, bundle: str | Path, k: int | None = None, *, prior: bool = False, hide_seen: bool = False
) -> Compared:
    """Compare the lists of a file with what a bundle lists after the same histories.

    As an engine sees neither, our lists are made without the prior and with items of the history, unless asked otherwise.
    """
    if not lists.is_file():
        raise FileNotFoundError(f"`{lists}` was not found.")
    recommender = Recommender.from_pretrained(bundle)
    asked = read_lists(lists, names_of(recommender))
    if hide_seen:
        asked = [_unseen(one) for one in asked]
    most = recommender.max_k if k is None else k
    ours = recommender.recommend(
        [one.history for one in asked], most, hide_seen=hide_seen, prior_weight=None if prior else 0
    )
    longest = max(max(len(one.listed) for one in asked), 1)
    return compare(asked, ours, min(most, longest))


def _unseen(one: Asked) -> Asked:
    kept = [at for at, item in enumerate(one.listed) if item not in one.history]
    return Asked(one.history, [one.listed[at] for at in kept], [one.scores[at] for at in kept] if one.scores else [])


if __name__ == "__main__":
    sys.exit(main())
