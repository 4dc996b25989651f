"""The log: checks, cleaning, order, core."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.log.cleaning import k_core, make_log
from rectune.log.ids import Ids, grouped, hashed
from rectune.log.log import Log, LogWarning


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


def test_seconds_of_a_timestamp_are_the_nearest_double() -> None:
    micros = np.arange(1, 500) * 1_234_567
    rows = pl.DataFrame(
        {"user": "u", "item": pl.Series(micros).cast(pl.String), "time": pl.Series(micros).cast(pl.Datetime("us"))}
    )
    log = make_log(rows, source="x")
    assert log.times is not None
    assert log.times.tolist() == [int(one) / 1e6 for one in micros]


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


def test_a_loaded_log_is_mapped_and_one_of_an_older_rectune_is_read(tmp_path: Path) -> None:
    users = np.repeat(np.arange(100_000), 3)
    events = {"user": users, "item": users % 7, "time": np.arange(len(users)) / 2, "rating": np.ones(len(users))}
    log = Log.encoded(events, list("abcdefg"), [f"u{i}" for i in range(100_000)])
    log.save(tmp_path)
    again = Log.load(tmp_path)
    for name in ("user_codes", "item_codes", "times", "ratings"):
        assert isinstance(getattr(again, name), np.memmap)
        assert getattr(again, name).dtype == getattr(log, name).dtype
        assert np.array_equal(getattr(again, name), getattr(log, name))
    for name in ("user", "item", "time", "rating"):
        (tmp_path / f"{name}.npy").unlink()
    log.interactions.write_parquet(tmp_path / "interactions.parquet")
    assert Log.load(tmp_path).interactions.equals(log.interactions)


ENCODED: dict[str, Any] = {"user": [0, 0, 1], "item": [1, 0, 1], "time": [5.0, 6.0, 1.0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item": [1, 0, 2]}, r"x: `item` is not in 0 … 1 at event 2 \(2\)"),
        ({"user": [0, -1, 1]}, r"x: `user` is not in 0 … 1 at event 1 \(-1\)"),
        ({"user": [0, 1, 0]}, r"stand user after user, but `user` falls at event 2"),
        ({"user": np.array([1, 0, 1], dtype=np.uint32)}, r"stand user after user, but `user` falls at event 1"),
        ({"time": np.array([6, 5, 1], dtype=np.uint64)}, r"oldest first, but `time` falls at event 1"),
        ({"time": [6.0, 5.0, 1.0]}, r"oldest first, but `time` falls at event 1"),
        ({"time": [5.0, np.nan, 1.0]}, r"`time` is no finite number at event 1"),
        ({"item": [1.0, 0.0, 1.0]}, r"`item` holds float64, but it must be whole numbers"),
        ({"item": [1, 0]}, r"`item` has the shape \(2,\) and `user` \(3,\)"),
        ({"price": [1, 0, 1]}, r"an event has user, item, time, rating, but no `price`"),
    ],
)
def test_encoded_events_are_checked(change: dict[str, Any], message: str) -> None:
    good = Log.encoded(ENCODED, ["a", "b"], ["u", "v"], source="x")
    assert good.interactions.rows() == [(0, 1, 5.0), (0, 0, 6.0), (1, 1, 1.0)]
    assert good.items["title"].to_list() == ["a", "b"]
    with pytest.raises(ValueError, match=message):
        Log.encoded({**ENCODED, **change}, ["a", "b"], ["u", "v"], source="x")


def test_ids_that_are_listed_twice_or_columns_that_are_missing_make_no_encoded_log(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the item `a` is listed twice"):
        Log.encoded(ENCODED, ["a", "a"], ["u", "v"])
    with pytest.raises(ValueError, match=r"holds no `user\.npy`"):
        Log.encoded(tmp_path, ["a"], ["u"])
    (tmp_path / "user.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"user\.npy is no array of NumPy"):
        Log.encoded(tmp_path, ["a"], ["u"])


def made(table: pl.DataFrame | list[pl.DataFrame], **more: Any) -> tuple[Log | str, list[str]]:
    """A log or its error, and what was warned of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            return make_log(table, source="x", **more), [str(one.message) for one in told]
        except ValueError as error:
            return str(error), [str(one.message) for one in told]


@pytest.mark.parametrize("seed", range(40))
def test_a_log_in_pieces_is_the_log_in_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(20, 200))
    days = rng.integers(1, 13, count)
    table = pl.DataFrame(
        {
            "user": [f"u{i}" for i in rng.integers(0, 9, count)],
            "item": [f"{' ' * (i % 2)}i{i}" for i in rng.integers(0, 12, count)],
            "time": [days, [f"{d:02d}/{d if seed % 3 else d + 12:02d}/2020" for d in days], days / 3][seed % 3],
            "rating": rng.integers(1, 6, count),
        }
    )
    if seed % 10 == 9:
        table = table.with_columns(item=pl.when(pl.int_range(pl.len()) % 9 == 8).then(None).otherwise(pl.col("item")))
    more: dict[str, Any] = {"user_core": seed % 4 * 4, "repeats": ("keep", "first", "last")[seed % 3]}
    (whole, told), (pieces, again) = made(table, **more), made(list(table.iter_slices(7)), **more)
    assert told == again
    if isinstance(whole, str) or isinstance(pieces, str):
        assert whole == pieces
        return
    assert whole.interactions.equals(pieces.interactions)
    assert whole.items.equals(pieces.items)
    assert whole.users.equals(pieces.users)
    assert whole.notes == pieces.notes


def test_what_is_wrong_in_a_later_piece_is_named_by_its_row_in_all() -> None:
    pieces = [events(("u", "a", "2020-01-31"), ("u", "b", "2020-02-01")), events(("u", "c", "soon"))]
    with pytest.raises(
        ValueError, match=r"`time` is not of the form '%Y-%m-%d' in 1 rows, the first is data row 3: 'soon'"
    ):
        make_log(pieces, source="x")
    with pytest.raises(ValueError, match=r"data row 3 is 5, but the rows before are of the form '%Y-%m-%d'"):
        make_log([pieces[0], events(("u", "c", 5))], source="x")
    stamps = events(("u", "a", 5)).with_columns(pl.col("time").cast(pl.Datetime("ms")))
    for first, second, told in (
        (stamps, events(("u", "b", 6)), "dates of their own type"),
        (events(("u", "b", 6)), stamps, "numbers"),
    ):
        with pytest.raises(ValueError, match=f"`time`: data row 2 is .*, but the rows before are {told}"):
            make_log([first, second], source="x")
    with pytest.raises(
        ValueError, match=r"data row 2 is datetime\.datetime.*, but the rows before are of the form '%Y-%m-%d'"
    ):
        make_log([events(("u", "a", "2020-01-31")), stamps], source="x")
    assert make_log([pieces[0].clear(), pieces[0]], source="x").n_events == 2  # a file without rows
    either = [events(("u", "a", "01/02/2020")), events(("u", "b", "13/02/2020"))]
    log = make_log(either, source="x")
    assert log.times is not None
    assert np.diff(log.times).tolist() == [12 * 86400]  # day first, as the second piece tells


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_ids_are_numbered_by_their_first_row(size: int) -> None:
    words = [f"w{i}" for i in np.random.default_rng(0).integers(0, 90, 1000)]
    ids = Ids()
    codes = np.concatenate([ids.encode(pl.Series(words[i : i + size])) for i in range(0, 1000, size)])
    order = list(dict.fromkeys(words))
    assert ids.names().to_list() == order
    assert len(ids) == len(order)
    assert [order[code] for code in codes] == words


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("kept", [0, 0b101, 0xF << 60], ids=["one hash for all", "four hashes", "sixteen hashes"])
def test_texts_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch, size: int, kept: int) -> None:
    def few(column: pl.Series, seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return hashed(column, seed) & np.uint64(kept) if seed == 0 else hashed(column, seed)

    monkeypatch.setattr("rectune.log.ids.hashed", few)
    words = [f"w{i}" for i in np.random.default_rng(0).integers(0, 90, 1000)]
    ids = Ids()
    codes = np.concatenate([ids.encode(pl.Series(words[i : i + size])) for i in range(0, 1000, size)])
    names = ids.names().to_list()
    assert sorted(names) == sorted(set(words))
    assert len(ids) == len(names)
    assert [names[code] for code in codes] == words


@pytest.mark.parametrize("shift", [0, 40, 58, 63], ids=lambda shift: f"shift {shift}")
def test_hashes_are_grouped_as_a_stable_sort_does(shift: int) -> None:
    """Shifted to the right, so that most differ in the lower bits alone, which hold the position while they are sorted."""
    hashes = np.random.default_rng(0).integers(0, 2**63, 500).astype(np.uint64) >> np.uint64(shift)
    order, found, starts = grouped(hashes)
    assert order.tolist() == np.argsort(hashes, kind="stable").tolist()
    assert found.tolist() == np.sort(hashes).tolist()
    assert found[starts].tolist() == np.unique(hashes).tolist()


def test_an_empty_piece_has_no_ids() -> None:
    ids = Ids()
    assert ids.encode(pl.Series([], dtype=pl.String)).tolist() == []
    assert ids.names().to_list() == []
