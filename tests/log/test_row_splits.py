"""Splits by row and by user: TALLRec's rows to the last one, users in one part, smaller sets inside larger ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rectune.baselines.markov import transitions
from rectune.baselines.sasrec_training import training_sequences
from rectune.log.cleaning import make_log
from rectune.log.few_shots import few_shots
from rectune.log.log import Log
from rectune.log.split import PARTS, Split
from rectune.log.splits.by_time import by_time
from rectune.log.splits.by_user import by_user
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.log.splits.tallrec_movie import tallrec_movie


@pytest.mark.filterwarnings("ignore:MovieLens 100k")
def test_the_rows_of_movielens_are_those_that_tallrec_ships(data: Callable[[str], Path]) -> None:
    from rectune.data_builders.movielens import movielens

    shipped = data("tallrec/movie")
    log = movielens(size="100k", path=data("ml-100k"))
    split = tallrec_movie(log)
    equal = 0
    for part, name in zip(PARTS, ("train", "valid", "test"), strict=True):
        wanted = json.loads(gzip.decompress((shipped / f"{name}.json.gz").read_bytes()))
        rows = split.part(part)
        assert len(wanted) == len(rows)
        equal += sum(_said(split, part, i) == (w["input"], w["output"]) for i, w in enumerate(wanted))
    assert equal == 10_000
    assert split.notes["users"] == {"train": 80, "validation": 14, "test": 16}
    assert split.notes["users_in_both"] == {"train and validation": 1, "validation and test": 1, "train and test": 0}


def _said(split: Split, part: str, i: int) -> tuple[str, str]:
    """A row in TALLRec's words."""
    log, rows = split.log, split.part(part)  # type: ignore[arg-type]
    assert log.ratings is not None
    events = range(rows.start[i], rows.stop[i])
    title = [f'"{t}"' for t in log.items["title"].to_list()]
    sides = [
        ", ".join(title[log.item_codes[e]] for e in events if (log.ratings[e] > 3) == liked) for liked in (True, False)
    ]
    target = title[log.item_codes[rows.target[i]]]
    text = f"User Preference: {sides[0]}\nUser Unpreference: {sides[1]}\nWhether the user will like the target movie {target}?"
    return text, "Yes." if log.ratings[rows.target[i]] > 3 else "No."


def shop(lengths: dict[str, int]) -> Log:
    rows = [(user, f"i{n}", float(n), 1.0 + n % 5) for user, length in lengths.items() for n in range(length)]
    return make_log(pl.DataFrame(rows, schema=["user", "item", "time", "rating"], orient="row"), source="shop")


def test_tallrec_rule_by_hand() -> None:
    split = tallrec_movie(shop({"u": 4, "v": 5}), history=2, rows=5, validation=0.2, test=0.2)
    # u has windows at 2 and 3, v at 6, 7 and 8: five in all, cut 3 / 1 / 1
    assert split.train.target.tolist() == [2, 3, 6]
    assert split.validation.target.tolist() == [7]
    assert split.test.target.tolist() == [8]
    assert split.train.start.tolist() == [0, 1, 4]
    assert split.train_events.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_too_few_windows_are_an_error() -> None:
    with pytest.raises(
        ValueError, match="it has 2 events with 3 earlier ones of their user, but `rows` asks for 10000"
    ):
        tallrec_movie(shop({"u": 5}), history=3)


def test_by_user_keeps_each_user_in_one_part() -> None:
    log = shop({f"u{n}": 6 for n in range(40)} | {"short": 2})
    split = by_user(log, min_history=3, seed=1)
    users = [set(split.part(p).user.tolist()) for p in PARTS]
    assert [len(u) for u in users] == [32, 4, 4]
    assert len(users[0] | users[1] | users[2]) == 40
    assert split.notes["users_left_out"] == 1
    assert len(split.test) == 4 * 3
    assert set(log.user_codes[split.train_events].tolist()) == users[0]
    other = by_user(log, min_history=3, seed=2)
    assert set(other.test.user.tolist()) != users[2]


def test_by_user_can_keep_one_row_a_user() -> None:
    split = by_user(shop({f"u{n}": 6 for n in range(10)}), rows_per_user=1)
    for part in PARTS:
        rows = split.part(part)
        assert (rows.target % 6 == 5).all()
        assert len(np.unique(rows.user)) == len(rows)


def test_smaller_sets_lie_in_larger_ones_and_hide_the_rest() -> None:
    split = leave_one_out(shop({f"u{n}": 8 for n in range(20)}))
    few, more = few_shots(split, 4, seed=3), few_shots(split, 16, seed=3)
    assert (len(few.train), len(more.train)) == (4, 16)
    assert set(few.train.row.tolist()) < set(more.train.row.tolist())
    assert few_shots(split, 4, seed=4).train.row.tolist() != few.train.row.tolist()
    known = {e for a, b in zip(few.train.start, few.train.target, strict=True) for e in range(a, b + 1)}
    assert set(few.train_events.tolist()) == known
    assert few.test is split.test
    assert few.notes["shots"] == 4


@pytest.mark.parametrize(("shots", "message"), [(0, "whole number from 1"), (1000, "there are 100 training rows")])
def test_shots_that_cannot_be_drawn(shots: int, message: str) -> None:
    split = leave_one_out(shop({f"u{n}": 8 for n in range(20)}))
    with pytest.raises(ValueError, match=message):
        few_shots(split, shots, seed=0)


@pytest.mark.parametrize("length", [0, -3])
def test_histories_hold_an_item_in_every_split(length: int) -> None:
    log = shop({f"u{n}": 8 for n in range(20)})
    with pytest.raises(ValueError, match="`max_history` is in items and must be at least 1"):
        by_user(log, max_history=length)
    with pytest.raises(ValueError, match="`history` is in items and must be at least 1"):
        tallrec_movie(log, history=length, rows=20)


def test_what_was_not_drawn_stands_between_two_events() -> None:
    """Events of few rows do not follow each other where events between them are left out."""
    split = few_shots(leave_one_out(shop({"u": 40, "v": 40}), max_history=2), 3, seed=0)
    together = np.diff(split.train_events) == 1
    users, items = split.train_sequences()
    assert not together.all()
    assert split.follows.tolist() == (together & (users[1:] == users[:-1])).tolist()
    counted = transitions(split).tocoo()
    pairs = set(zip(counted.row.tolist(), counted.col.tolist(), strict=True))
    assert pairs == {(int(a), int(b)) for a, b, near in zip(items[:-1], items[1:], split.follows, strict=True) if near}
    sequences = [sequence.tolist() for sequence in training_sequences(split, 10)]
    assert sum(len(sequence) - 1 for sequence in sequences) == int(split.follows.sum())
    assert {pair for sequence in sequences for pair in pairwise(sequence)} == pairs


def test_a_split_in_time_without_a_training_row_is_refused() -> None:
    events = pl.DataFrame(
        {"user": [f"u{n}" for n in range(12)] + ["u0", "u1"], "item": ["a", "b"] * 7, "time": [*range(12), 12, 13]}
    )
    with pytest.raises(ValueError, match="no row in `train`"):
        by_time(make_log(events, None, source="once"), validation=0.1, test=0.1)
