"""The log: checks, cleaning, order, core."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.log.log import Log, LogWarning, k_core, make_log
from rectune.log.splits.leave_one_out import leave_one_out


def events(*rows: tuple[Any, ...], columns: tuple[str, ...] = ("user", "item", "time")) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=list(columns), orient="row")


GOOD = events(("u", "a", 1), ("v", "b", 2), ("u", "c", 3))


def test_ids_are_codes_and_events_lie_user_after_user() -> None:
    log = make_log(GOOD, source="x")
    assert log.interactions.rows() == [(0, 0, 1.0), (0, 1, 3.0), (1, 2, 2.0)]
    assert log.users.to_list() == ["u", "v"]
    assert log.items["item_id"].to_list() == ["a", "c", "b"]


def test_ties_keep_the_order_of_the_rows() -> None:
    log = make_log(events(("u", "b", 5), ("u", "a", 5), ("u", "c", 1)), source="x", warn_unordered=False)
    assert [log.items["item_id"][int(i)] for i in log.item_codes] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (GOOD.drop("item"), "x: the log has no column `item`. It has: user, time"),
        (GOOD.clear(), "x: the log is empty"),
        (events(("u", None, 1)), "`item` is empty in 1 rows, the first is data row 1"),
        (events(("u", "a", 1), ("u", "b", None)), "`time` is empty in 1 rows, the first is data row 2"),
        (events(("u", "a", float("nan"))), "`time` is not a number in 1 rows, the first is data row 1: nan"),
        (
            events(("u", "a", "1"), ("u", "b", "soon")),
            "`time` is not a number in 1 rows, the first is data row 2: 'soon'",
        ),
        (events(("u", "a", "good"), columns=("user", "item", "rating")), "`rating` is not a number"),
    ],
)
def test_what_makes_no_log_is_refused(table: pl.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_log(table, source="x")


def test_dates_become_seconds() -> None:
    log = make_log(events(("u", "a", "1970-01-02"), ("u", "b", "1970-01-03")), source="x")
    assert log.interactions["time"].to_list() == [86_400.0, 172_800.0]


def test_duplicated_events_are_counted_once_with_a_warning() -> None:
    with pytest.warns(LogWarning, match="1 events repeat the same user, item and time"):
        log = make_log(events(("u", "a", 1), ("u", "a", 1), ("u", "a", 2)), source="x")
    assert log.interactions.height == 2


def test_a_log_out_of_order_is_sorted_with_a_warning() -> None:
    with pytest.warns(LogWarning, match="not in time order"):
        log = make_log(events(("u", "a", 2), ("u", "b", 1)), source="x")
    assert log.interactions["time"].to_list() == [1.0, 2.0]


def test_repeats_can_be_dropped() -> None:
    table = events(("u", "a", 1), ("u", "b", 2), ("u", "a", 3))
    assert make_log(table, source="x", repeats="first").interactions["time"].to_list() == [1.0, 2.0]
    assert make_log(table, source="x", repeats="last").interactions["time"].to_list() == [2.0, 3.0]


def test_texts_are_unescaped_and_folded_and_lists_joined() -> None:
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["Salt &amp; Pepper", " two\n lines ", "x"],
            "tags": [["p", "q"], [], None],
        }
    )
    log = make_log(GOOD, items, source="x")
    assert log.items["title"].to_list() == ["Salt & Pepper", "two lines", "x"]
    assert log.items["tags"].to_list() == ["p, q", "", ""]


def test_missing_metadata_empty_and_repeated_titles_warn() -> None:
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["Same", "Same"]})
    with pytest.warns(LogWarning) as caught:
        log = make_log(GOOD, items, source="x")
    messages = " | ".join(str(w.message) for w in caught)
    assert "1 items of the log have no metadata, for example `c`" in messages
    assert "1 items have an empty title" in messages
    assert "1 items repeat the title" in messages
    assert log.items["title"].to_list() == ["Same", "Same", "untitled"]


def test_warnings_can_be_turned_off() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore", LogWarning)
        make_log(events(("u", "a", 2), ("u", "b", 1)), source="x")
    assert caught == []


def test_k_core_runs_to_the_fixed_point() -> None:
    # c has one event; without it u2 has one event, without u2 item b has one, and only u0, u1 on a, d are left
    rows = [("u0", "a"), ("u0", "d"), ("u1", "a"), ("u1", "d"), ("u2", "b"), ("u2", "c"), ("u0", "b")]
    table = pl.DataFrame(rows, schema=["user", "item"], orient="row")
    assert k_core(table, user_core=2, item_core=2).rows() == [("u0", "a"), ("u0", "d"), ("u1", "a"), ("u1", "d")]


def test_everybody_below_the_core_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no event is left at user_core=5, item_core=0. Lower them"):
        make_log(GOOD, source="x", user_core=5)


def test_untouched_items_stay_unless_there_is_an_item_core() -> None:
    items = pl.DataFrame({"item_id": list("abcz"), "title": list("ABCZ")})
    assert make_log(GOOD, items, source="x").n_items == 4
    assert make_log(GOOD, items, source="x", item_core=1).n_items == 3


def test_a_log_survives_saving(tmp_path: Path, tiny_log: Log) -> None:
    tiny_log.save(tmp_path)
    again = Log.load(tmp_path)
    assert again.interactions.equals(tiny_log.interactions)
    assert again.items.equals(tiny_log.items)
    assert again.users.equals(tiny_log.users)


def test_events_that_lie_in_two_pieces_are_copied_once(tiny_log: Log) -> None:
    pieces = [tiny_log.interactions.head(2), tiny_log.interactions.tail(-2)]
    split = leave_one_out(dataclasses.replace(tiny_log, interactions=pl.concat(pieces, rechunk=False)))
    assert split.log.interactions.n_chunks() == 2
    one, other = split.history(split.test, 0), split.history(split.test, 1)
    assert one.base is not None
    assert one.base is other.base
    for name in ("user_codes", "item_codes", "times", "ratings"):
        assert getattr(split.log, name) is getattr(split.log, name)
        assert np.array_equal(getattr(split.log, name), getattr(tiny_log, name))
