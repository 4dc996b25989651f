"""Ratings of 4 users, two of each held out, with hand-made answers of the models: what a Yes/No and a rating run report.

user  items    ratings    liked (above 3)
u0    d b a c  5 5 | 4 1  yes yes | yes no     The first event is only read, the second is the training target, the
u1    c a b d  2 1 | 3 5  no  no  | no  yes    last two are test targets. Of the training targets b was liked in 2 of 3,
u2    d b c a  4 2 | 5 2  yes no  | yes no     a in 0 of 1.
u3    c b a d  4 5 | 4 5  yes yes | yes yes
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.indexing.atomic import atomic
from rectune.log.cleaning import make_log
from rectune.log.split import Split, rows_of, user_bounds
from rectune.recipe.load import Recipe
from rectune.run.judged import Evidence
from rectune.tasks.like_or_dislike import like_or_dislike
from rectune.tasks.rating import rating
from rectune.tasks.rows import TaskRows
from tests.eval.golden import ENVIRONMENT

ITEMS = "dbac cabd dbca cbad".split()
RATINGS = [[5, 5, 4, 1], [2, 1, 3, 5], [4, 2, 5, 2], [4, 5, 4, 5]]
LIKED = [1, 0, 0, 1, 1, 0, 1, 1]  # of the test rows
GIVEN = [4, 1, 3, 5, 5, 2, 4, 5]
USERS = [0, 0, 1, 1, 2, 2, 3, 3]

YES = {"untuned": [0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], "tuned": [0.9, 0.3, 0.2, 0.6, 0.7, 0.8, 0.6, 0.9]}
SURE = [4, 2, 3, 5, 5, 2, 4, 5]  # the rating that the tuned model holds for most likely, with .6


def split_of(ratings: list[list[int]] = RATINGS, *, tested: tuple[int, ...] = (2, 3)) -> Split:
    """The log above; `tested`: which events of each user are test targets."""
    rows = [(f"u{u}", item, r) for u, items in enumerate(ITEMS) for item, r in zip(items, ratings[u], strict=True)]
    events = pl.DataFrame(rows, schema=["user", "item", "rating"], orient="row")
    items = pl.DataFrame({"item_id": list("abcd"), "title": ["Alien", "Brazil", "Cube", "Dune"]})
    log = make_log(events, items, source="films")
    first, position = user_bounds(log)[0], np.arange(16)
    train, test = position % 4 == 1, np.isin(position % 4, tested)
    none = rows_of(log, position[:0], first, 20)
    return Split(log, rows_of(log, position[train], first, 20), none, rows_of(log, position[test], first, 20), position[position % 4 < 2])  # fmt: skip


def likes(ratings: list[list[int]] = RATINGS, *, tested: tuple[int, ...] = (2, 3), **yes: list[float]) -> Evidence:
    """What a Yes/No run hands to its evaluator; `yes` replaces a model's chances."""
    split = split_of(ratings, tested=tested)
    chances = {who: np.array(p)[np.isin(np.tile([2, 3], 4), tested)] for who, p in (YES | yes).items()}
    answers = {who: np.stack([1 - p, p], axis=1) for who, p in chances.items()}
    return _evidence(split, like_or_dislike(split, atomic(split), "test"), answers)


def stars(ratings: list[list[int]] = RATINGS, *, sure: list[int] = SURE) -> Evidence:
    """What a rating run from 1 to 5 hands to its evaluator: the tuned model gives .6 to one rating, .1 to each other."""
    split = split_of(ratings)
    tuned = np.full((8, 5), 0.1)
    tuned[np.arange(8), np.array(sure) - 1] = 0.6
    answers = {"untuned": np.full((8, 5), 0.2), "tuned": tuned}
    return _evidence(split, rating(split, atomic(split), "test", low=1, high=5), answers)


def _evidence(split: Split, task: TaskRows, answers: dict[str, NDArray[np.float64]]) -> Evidence:
    built: Any = None  # no stage is asked for
    return Evidence(
        recipe=Recipe("films", {"data": {"call": "none"}, "rank": {}, "seed": 3}), split=split, index=atomic(split), task=task,
        task_section={"like_above": 3.0}, rankings={}, answers=answers, shuffled=None, shuffled_rows=None, training=[[]],
        audits=[], measured={"training, stage 0": {"seconds": 5.0}}, environment=ENVIRONMENT, cached=built, seed=3,
    )  # fmt: skip
