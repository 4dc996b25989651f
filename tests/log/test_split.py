"""Splits: no future in any history."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rectune.log.cleaning import make_log
from rectune.log.log import Log
from rectune.log.split import Split, windows
from rectune.log.splits.by_time import by_time
from rectune.log.splits.given import given
from rectune.log.splits.leave_one_out import leave_one_out


def names(log: Log, codes: np.ndarray) -> str:
    return "".join(log.items["item_id"][int(c)] for c in codes)


def shown(split: Split, part: str) -> list[tuple[str, str]]:
    rows = split.part(part)  # type: ignore[arg-type]
    return [
        (names(split.log, split.history(rows, i)), names(split.log, split.targets(rows)[i : i + 1]))
        for i in range(len(rows))
    ]


def test_leave_one_out_by_hand(tiny_log: Log) -> None:
    split = leave_one_out(tiny_log)
    assert shown(split, "test") == [("abc", "d"), ("bc", "e"), ("acdb", "e")]
    assert shown(split, "validation") == [("ab", "c"), ("b", "c"), ("acd", "b")]
    assert shown(split, "train") == [("a", "b"), ("a", "c"), ("ac", "d")]
    assert names(tiny_log, tiny_log.item_codes[split.train_events]) == "abbacd"


def test_max_history_keeps_the_latest_but_everything_counts_as_seen(tiny_log: Log) -> None:
    split = leave_one_out(tiny_log, max_history=2)
    assert shown(split, "test") == [("bc", "d"), ("bc", "e"), ("db", "e")]
    assert names(tiny_log, split.seen(split.test, 2)) == "abcd"


def test_short_users_only_train() -> None:
    log = make_log(pl.DataFrame({"user": list("uuuvv"), "item": list("abcab")}), source="x")
    split = leave_one_out(log)
    assert len(split.test) == len(split.validation) == 1
    assert shown(split, "train") == [("a", "b")]
    assert split.notes["users_only_in_training"] == 1


def test_nobody_to_hold_out_is_an_error() -> None:
    log = make_log(pl.DataFrame({"user": list("uv"), "item": list("ab")}), source="x")
    with pytest.raises(ValueError, match="no user has 3 events"):
        leave_one_out(log)


def test_by_time_holds_no_future_for_any_user(small_shop: Log) -> None:
    split = by_time(small_shop, validation=0.15, test=0.2)
    times = small_shop.times
    assert times is not None
    low, high = split.notes["cuts"]
    for part, (begin, end) in {"train": (-np.inf, low), "validation": (low, high), "test": (high, np.inf)}.items():
        rows = split.part(part)  # type: ignore[arg-type]
        assert len(rows) > 0
        assert ((times[rows.target] >= begin) & (times[rows.target] < end)).all()
        for i in range(len(rows)):
            assert (times[rows.first[i] : rows.stop[i]] <= times[rows.target[i]]).all()
    assert (times[split.train_events] < low).all()
    assert 0.19 < (times >= high).mean() < 0.21


def test_by_time_without_times_is_an_error() -> None:
    log = make_log(pl.DataFrame({"user": list("uuu"), "item": list("abc")}), source="x")
    with pytest.raises(ValueError, match="`by_time` needs times"):
        by_time(log)


def test_by_time_counts_rows_without_history() -> None:
    rows = [("old", "ab"[t % 2] + str(t), float(t)) for t in range(8)] + [("new", "a0", 8.0), ("old", "z", 9.0)]
    log = make_log(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), source="x")
    split = by_time(log, validation=0.2, test=0.2)
    assert len(split.test) == 1
    assert split.notes["rows_left_out"] == 1
    assert len(by_time(log, validation=0.2, test=0.2, min_history=0).test) == 2


def test_given_refuses_a_log_that_is_not_cut(tiny_log: Log) -> None:
    with pytest.raises(ValueError, match="does not come split"):
        given(tiny_log)


def test_windows_train_every_target_once(small_shop: Log) -> None:
    split = leave_one_out(small_shop, max_history=4)
    rows = windows(split, length=4)
    covered = np.concatenate([np.arange(rows.start[i] + 1, rows.target[i] + 1) for i in range(len(rows))])
    assert np.array_equal(np.sort(covered), np.sort(split.train.target))
    assert (rows.target - rows.start <= 4).all()


def test_one_item_is_no_catalogue() -> None:
    log = make_log(pl.DataFrame({"user": list("uuu"), "item": list("aaa")}), source="x")
    with pytest.raises(ValueError, match="holds 1 item; ranking needs at least 2"):
        leave_one_out(log)


def test_a_split_survives_saving(tmp_path: Path, tiny_log: Log) -> None:
    split = leave_one_out(tiny_log)
    split.save(tmp_path)
    again = Split.load(tmp_path, tiny_log)
    assert shown(again, "test") == shown(split, "test")
    assert np.array_equal(again.train_events, split.train_events)


def test_what_a_user_trained_on_is_found_in_every_split(small_shop: Log) -> None:
    for split in (leave_one_out(small_shop), by_time(small_shop)):
        users, items = split.train_sequences()
        assert np.all(np.diff(users) >= 0)
        for user in range(small_shop.n_users):
            assert split.trained(user).tolist() == items[users == user].tolist()
