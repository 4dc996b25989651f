"""Recommending after histories that are given: by a finished run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rectune.decoding.shelf import Shelf
from rectune.log.catalogue import Catalogue
from rectune.log.split import Split
from rectune.run.check import check_k
from rectune.run.prior_box import weighted
from rectune.run.rankings import prior_weight
from rectune.run.run import Run, open_run
from rectune.tasks.asked_histories import history_split


def recommend(
    folder: str | Path,
    histories: Sequence[Sequence[str]],
    *,
    k: int | None = None,
    by: Literal["item_id", "title"] = "item_id",
    hide_seen: bool = True,
    allow: Sequence[str] | None = None,
    deny: Sequence[str] = (),
    candidates: Sequence[Sequence[str]] | None = None,
    users: Sequence[str] | None = None,
) -> list[list[dict[str, Any]]]:
    """Recommend after each history (oldest first), given by item ids or, with `by='title'`, by titles.

    `allow` and `deny`: ids of items that alone may, or must not, be listed (stock, age, region); ids that the catalogue
    does not hold count for nothing, with a warning. `candidates`: for each history the ids that are to be ranked. `users`:
    whose history each is, for a run whose prompts have user tokens.
    Returns for each history a list of {'item_id', 'title', 'score'}, best first, shorter than `k` where fewer items may
    be listed. Scores don't depend on what may be listed. Raises ValueError for an unknown item of a history or of the
    candidates (with near misses), for a `k` above `rank.beams` or the catalogue, or when no item may be listed.
    """
    run = open_run(folder, added=True)
    if run.rows.kind != "item":
        raise ValueError(
            f"{folder}: this run answers about one item (Yes/No, a rating); it has no catalogue ranking to recommend from."
        )
    k = run.asked.rank.k if k is None else k
    check_k(run, k)
    ids = Catalogue(run.log)
    named = ids if by == "item_id" else Catalogue(run.log, by)
    codes = [named.codes(history) for history in histories]
    for what, given in (("candidates for", candidates), ("users for", users)):
        if given is not None and len(given) != len(histories):
            raise ValueError(f"there are {len(histories)} histories, but {what} {len(given)}.")
    shelf = Shelf(
        allowed=ids.allowed(allow, deny),
        hidden=[sorted(set(history)) if hide_seen else [] for history in codes],
        only=None if candidates is None else [ids.codes(some) for some in candidates],
    )
    asked = history_split(run.split, codes, users)
    prior = prior_of(run, folder)
    if prior is not None:
        shelf = replace(shelf, prior=prior(asked))
    ranking = run.models["tuned"].rank(run.rows_of_split(asked), shelf)
    items = run.log.items
    return [
        [
            {"item_id": items["item_id"][int(item)], "title": items["title"][int(item)], "score": float(score)}
            for item, score in zip(row[:k], scores[:k], strict=True)
            if item >= 0
        ]
        for row, scores in zip(ranking.items, ranking.scores, strict=True)
    ]


def prior_of(run: Run, folder: str | Path) -> Callable[[Split], Any] | None:
    """What `Shelf.prior` takes for the test rows of a split, or None where the run has no prior beside its model."""
    if run.asked.prior is None:
        return None
    plain = run if run.asked.added is None else open_run(folder)  # a prior belongs to the catalogue of the tuning
    weight = prior_weight(plain)["weight"]
    return lambda split: weighted(plain["prior"], split, split.test, weight)
