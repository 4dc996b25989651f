"""What users were shown, out of a log with kinds of events: which rows, until when, kept, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rectune.data_builders.encoded import encoded
from rectune.data_builders.table import table

from rectune.log.log import Log
from rectune.log.shown import Shown
from rectune.log.splits.leave_one_out import leave_one_out
from tests.data_builders.small import quietly

# Two visits of u, each with a list that was shown at once and what was clicked in it; v was shown nothing; w bought nothing.
ROWS = """user,item,time,event
u,a,10,seen
u,b,10,seen
u,c,10,seen
u,a,10,click
u,c,10,click
u,d,20,seen
u,b,20,seen
u,e,21,click
u,f,30,seen
u,d,31,click
u,g,40,seen
u,b,50,click
u,a,50,seen
w,a,5,seen
u,z,12,seen
v,a,1,click
v,b,2,click
v,c,3,click
v,f,4,click
v,g,5,click
u,b,51,late
"""


def log_of(folder: Path, text: str = ROWS, **keys: Any) -> Log:
    (folder / "log.csv").write_text(text)
    given = {"time": "time", "where": {"event": "click"}, "shown": {"event": "seen"}, **keys}
    made: Log = quietly(table, path=folder / "log.csv", **given)
    return made


def named(log: Log, items: Any) -> list[str]:
    return [log.items["item_id"][int(item)] for item in items]


@pytest.mark.parametrize("which", [{"event": ["seen"]}, "event = 'seen'", "event IN ('seen', 'other')"])
def test_a_row_knows_what_was_shown_since_the_event_before_and_earlier(tmp_path: Path, which: Any) -> None:
    log = log_of(tmp_path, shown=which)
    assert log.n_events == 10
    assert log.facts()["shown"] == 8
    assert log.facts()["shown_of_others"] == 2  # w is no user, z no item
    split = leave_one_out(log)
    found = {}
    for rows in (split.train, split.validation, split.test):
        shown = split.shown(rows)
        assert shown is not None
        for i in range(len(rows)):
            user, target = log.users[int(rows.user[i])], named(log, split.targets(rows)[i : i + 1])[0]
            found[user, target] = tuple(sorted(named(log, some)) for some in shown(i))
    assert found["u", "c"] == (
        ["a", "b", "c"],
        [],
    )  # of one list two were clicked: the first of them is no earlier visit
    assert found["u", "e"] == (["b", "d"], ["a", "b", "c"])
    assert found["u", "d"] == (["f"], ["a", "b", "b", "c", "d"])
    assert found["u", "b"] == (["a", "g"], ["a", "b", "b", "c", "d", "f"])
    assert found["v", "g"] == ([], [])
    later = split.shown(split.train)
    assert later is not None
    at = np.flatnonzero(split.train.user == log.users.to_list().index("u"))
    one, other = later.take(at[::-1])(0), later(int(at[-1]))
    assert [some.tolist() for some in one] == [some.tolist() for some in other]


def test_only_events_have_ratings(tmp_path: Path) -> None:
    rows = [line.split(",") for line in ROWS.splitlines()]
    text = "\n".join(
        [",".join([*rows[0], "stars"]), *(",".join([*r, "4" if r[3] == "click" else ""]) for r in rows[1:])]
    )
    log = log_of(tmp_path, text + "\n", rating="stars")
    assert log.ratings is not None
    assert set(log.ratings.tolist()) == {4.0}
    assert len(log.shown or ()) == 8


def test_what_was_shown_is_kept_with_the_log(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    (tmp_path / "kept").mkdir()
    log.save(tmp_path / "kept")
    for again in (Log.load(tmp_path / "kept"), encoded(path=tmp_path / "kept")):
        for name in ("user", "item", "time"):
            np.testing.assert_array_equal(getattr(again.shown, name), getattr(log.shown, name))
    np.save(tmp_path / "kept" / "shown-item.npy", np.array([9] * 8, dtype=np.int32))
    with pytest.raises(ValueError, match=r"kept: of what was shown `item` is not in 0 … 6 in row 0"):
        encoded(path=tmp_path / "kept")
    (tmp_path / "kept" / "shown-time.npy").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"kept: shown-time.npy is no array of NumPy"):
        encoded(path=tmp_path / "kept")


def test_order_and_shapes_are_checked() -> None:
    events = {"user": [0, 0], "item": [0, 1], "time": [1.0, 2.0]}

    def made(user: list[int], item: list[int], time: list[float], **other: Any) -> Log:
        shown = Shown(np.array(user), np.array(item), np.array(time), "s")
        return Log.encoded({**events, **other}, ["a", "b"], ["u"], source="s", shown=shown)

    assert len(made([0, 0], [0, 1], [1, 1]).shown or ()) == 2
    for user, item, time, message in (
        ([0, 0], [0, 1], [2, 1], "oldest first, but row 1 does not"),
        ([0, 0], [0, 1], [1, float("nan")], "oldest first, but row 1 does not"),
        ([0, 1], [0, 1], [1, 1], r"`user` is not in 0 … 0 in row 1"),
        ([0, 0], [0], [1, 1], r"`item` has the shape \(1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            made(user, item, [float(t) for t in time])
    with pytest.raises(ValueError, match="has times, and the events have none"):
        Log.encoded({"user": [0], "item": [0]}, ["a"], ["u"], shown=Shown(*[np.zeros(1)] * 3, "s"))  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"where": None}, r"`data.where` must say which are events"),
        ({"time": None}, r"`data.time` name the column"),
        ({"shown": {"event": "impression"}}, r"no row has `event` 'impression' \(`data.shown`\). It has: click \(10\), seen"),
        ({"shown": {"kind": "seen"}}, r"no column `kind` \(named by `data.shown`\)"),
        ({"shown": "event = "}, r"`data.shown`: 'event = ' is not a condition"),
        ({"shown": "time > 1000"}, r"no row is left by `data.shown`"),
        ({"shown": "item = 'z'"}, r"of 1 rows of what was shown none is of a user and an item of the log"),
        ({"layout": "sequences"}, r"`data.shown`"),
        ({"shown": {"event": "late"}}, r"rows of `data.shown`: all of it was shown after the last event of the log. Are times of both in one unit"),
    ],
)  # fmt: skip
def test_what_says_nothing_is_refused(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_of(tmp_path, **keys)


def test_an_empty_time_of_something_shown_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"log.csv, rows of `data.shown`: `time` is empty in 1 rows"):
        log_of(tmp_path, ROWS.replace("u,f,30,seen", "u,f,,seen"))


def test_blanks_around_ids_and_dates_are_read_alike(tmp_path: Path) -> None:
    dated = ROWS.replace("event\n", "event\n", 1)
    lines = [line.split(",") for line in dated.splitlines()]
    told = [lines[0], *([u, f" {i} ", f"2026-01-01 00:00:{int(t):02d}", e] for u, i, t, e in lines[1:])]
    log = log_of(tmp_path, "\n".join(map(",".join, told)) + "\n")
    plain = log_of(tmp_path)
    assert log.shown is not None
    assert plain.shown is not None
    assert log.shown.item.tolist() == plain.shown.item.tolist()
    start = pl.datetime(2026, 1, 1)
    assert (log.shown.time - plain.shown.time).tolist() == [pl.select(start.dt.epoch("s")).item()] * 8
