"""SASRec with full-softmax cross-entropy."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.baselines.sasrec_network import (
    SasRecSettings,
    load_sasrec,
    train_sasrec,
    training_sequences,
    validation_ndcg,
)
from rectune.indexing.rq_vae import RqVaeSettings
from rectune.log.log import make_log
from rectune.log.split import Split, windows
from rectune.log.splits.by_user import by_user
from rectune.log.splits.leave_one_out import leave_one_out

SMALL = SasRecSettings(dimensions=16, dropout=0.0, epochs=40, batch=8, learning_rate=1e-2)


def walks(last: int = 0) -> Split:
    """Users who walk along a round of 12 items; `last` moves the held-out targets."""
    rows = []
    for user in range(24):
        items = [(user * 5 + step) % 12 for step in range(6)]
        items[-1] = (items[-1] + last) % 12
        rows += [(f"u{user:02}", f"i{item:02}", float(n)) for n, item in enumerate(items)]
    names = [f"i{item:02}" for item in range(12)]  # the order of items must not depend on what is held out
    items = pl.DataFrame({"item_id": names, "title": names})
    return leave_one_out(
        make_log(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), items, source="walks")
    )


def test_it_learns_a_fixed_order() -> None:
    split = walks()
    assert validation_ndcg(split, train_sasrec(split, SMALL, seed=0)) > 0.95


def test_without_validation_rows_the_last_epoch_is_kept() -> None:
    split = walks()
    alone = dataclasses.replace(split, validation=split.validation.take(np.zeros(0, dtype=np.int64)))
    assert validation_ndcg(split, train_sasrec(alone, SMALL, seed=0)) > 0.95


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="`epochs` of SASRec must be at least 1, got 0"):
        SasRecSettings(epochs=0)
    with pytest.raises(ValueError, match=r"`index.batch` must be at least 1, got 0"):
        RqVaeSettings(batch=0)


def test_held_out_targets_change_nothing_but_which_epoch_is_kept() -> None:
    one, two = (train_sasrec(walks(last), dataclasses.replace(SMALL, epochs=2), seed=0, checks=1) for last in (0, 3))
    assert np.array_equal(one.vectors(), two.vectors())


def test_it_sees_the_training_events_of_its_split_and_no_others() -> None:
    rows = [(f"u{user:02}", f"i{(user + n) % 12:02}", float(n)) for user in range(40) for n in range(9)]
    log = make_log(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), source="walks")
    split = by_user(log, rows_per_user=1, max_history=2)
    users = len(split.train)
    assert len(split.train_events) == 3 * users  # the target and two items before it
    sequences = training_sequences(split, 20)
    assert np.array_equal(np.concatenate(sequences), log.item_codes[split.train_events])
    assert len(sequences) == users
    short = training_sequences(split, 1)  # windows share one event: each but a user's first is a target once
    assert sorted((a, b) for a, b in short) == sorted(pair for one in sequences for pair in pairwise(one.tolist()))


def test_windows_of_training_events_are_those_of_the_rows() -> None:
    split = walks()
    rows = windows(split, length=2)
    expected = [split.log.item_codes[a : b + 1].tolist() for a, b in zip(rows.start, rows.target, strict=True)]
    assert [one.tolist() for one in training_sequences(split, 2)] == expected


def test_it_survives_saving_and_gives_probabilities(tmp_path: Path) -> None:
    split = walks()
    model = train_sasrec(split, dataclasses.replace(SMALL, epochs=1), seed=0)
    model.save(tmp_path)
    again = load_sasrec(tmp_path)
    assert again.settings == model.settings
    found: Any = again.log_probabilities(split, split.test)
    assert np.allclose(np.exp(found).sum(1), 1.0)
    assert np.array_equal(found, model.log_probabilities(split, split.test))


def test_what_was_trained_on_a_split_is_not_trained_again() -> None:
    split, short = walks(), dataclasses.replace(SMALL, epochs=1)
    first = train_sasrec(split, short, seed=0)
    assert train_sasrec(split, short, seed=0) is first
    assert train_sasrec(split, short, seed=1) is not first
    assert train_sasrec(walks(), short, seed=1) is not train_sasrec(split, short, seed=1)
