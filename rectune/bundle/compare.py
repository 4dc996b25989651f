"""Lists of an inference engine beside ours: `python -m rectune.bundle.compare LISTS BUNDLE`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rectune.bundle.alike import Asked, Compared, compare, table
from rectune.bundle.files import plain_name
from rectune.bundle.recommender import Recommender
from rectune.runtime.text_files import read_json_lines
from rectune.tasks.asked_histories import event_less
from rectune.tasks.views import ItemViews


def read_lists(file: Path, names: dict[Any, str]) -> list[Asked]:
    """Read JSON lines {"items": [ID, …], "listed": […], "scores": […]}; `names`: what an item may be called -> its id. Raises ValueError naming the line."""
    asked = []
    for number, row in read_json_lines(file):
        listed: Any = row.get("listed")
        scores: Any = row.get("scores", [])
        if not _holds(row.get("items"), _is_id) or not _holds(listed, _is_named):
            raise ValueError(
                f'{file.name}:{number}: a line must be {{"items": [ID, …], "listed": [ID, name or list of token ids, …]}}.'
            )
        if not _holds(scores, _is_score) or ("scores" in row and len(scores) != len(listed)):
            raise ValueError(f"{file.name}:{number}: `scores` must be a number for each of the {len(listed)} listed.")
        found = [names.get(one if isinstance(one, str) else tuple(one)) for one in listed]
        asked.append(Asked(row["items"], found, [float(score) for score in scores]))
    if not asked:
        raise ValueError(f"{file.name}: the file holds no list.")
    return asked


def _holds(value: object, kind: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and all(map(kind, value))


def _is_id(value: object) -> bool:
    return isinstance(value, str)


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_named(value: object) -> bool:
    return isinstance(value, str) or _holds(value, _is_token)


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
