"""Logs that come in pieces: several files, partitions, files that are larger than a piece, and what can be wrong with one of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rectune.data_builders import files, reader
from rectune.data_builders.encoded import encoded
from rectune.data_builders.table import table

from rectune.log.log import Log
from rectune.recipe.load import load_recipe
from rectune.run.run import open_recipe
from tests.data_builders.small import quietly

COLUMNS = {"user": "user", "item": "item", "time": "time"}


def made(count: int = 300, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user": [f"u{i}" for i in rng.integers(0, 20, count)],
            "item": [f"i{i}" for i in rng.integers(0, 15, count)],
            "time": rng.integers(0, 1000, count),
            "event": [("view", "buy")[i] for i in rng.integers(0, 2, count)],
            "price": [f"{i}" for i in rng.integers(1, 100, count)],
        }
    )


def same(one: Log, other: Log) -> None:
    assert one.interactions.equals(other.interactions)
    assert one.items.equals(other.items)
    assert one.users.equals(other.users)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of seven rows."""
    for module, name in ((files, "PIECE"), (files, "LINES"), (reader, "PIECE")):
        monkeypatch.setattr(module, name, 7)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("where", [None, {"event": "buy"}, "event = 'buy' AND price < 50"])
@pytest.mark.parametrize("kind", ["csv", "parquet", "slow csv", "gz"])
def test_a_large_file_is_the_same_log_as_a_small_one(tmp_path: Path, kind: str, where: Any) -> None:
    rows = made()
    wanted = rows
    if where is not None:
        wanted = rows.filter(pl.col("event") == "buy")
        wanted = wanted.filter(pl.col("price").cast(pl.Int64) < 50) if isinstance(where, str) else wanted
    wanted.write_parquet(tmp_path / "whole.parquet")
    path = tmp_path / {"gz": "log.csv.gz", "parquet": "log.parquet"}.get(kind, "log.csv")
    if kind == "parquet":
        rows.write_parquet(path, row_group_size=50)
    else:
        blank = "\n\n" if kind == "slow csv" else ""  # an empty line: Python reads it
        head, _, rest = rows.write_csv().partition("\n")
        path.write_text(f"{head}\n{blank}{rest}")
        if kind == "gz":
            import gzip

            path.write_bytes(gzip.compress(path.read_bytes()))
    same(quietly(table, path=path, where=where, **COLUMNS), quietly(table, path=tmp_path / "whole.parquet", **COLUMNS))


@pytest.mark.usefixtures("small")
def test_partitions_give_their_column(tmp_path: Path) -> None:
    rows = made().sort("time", maintain_order=True)
    days = rows.with_columns(day=pl.format("1970-01-{}", (pl.col("time") // 100 + 10)))
    for (day,), part in days.partition_by("day", as_dict=True, maintain_order=True).items():
        folder = tmp_path / "log" / f"day={day}"
        folder.mkdir(parents=True)
        part.drop("day").write_parquet(folder / "part-0.parquet")
    days.write_parquet(tmp_path / "whole.parquet")
    by_day = {**COLUMNS, "time": "day"}
    same(quietly(table, path=tmp_path / "log", **by_day), quietly(table, path=tmp_path / "whole.parquet", **by_day))
    with pytest.raises(ValueError, match="no column `hour`"):
        quietly(table, path=tmp_path / "log", **{**COLUMNS, "time": "hour"})


def test_files_whose_ids_are_of_another_kind_are_refused(tmp_path: Path) -> None:
    rows = pl.DataFrame({"user": [1, 2], "item": [3, 4], "time": [1, 2]})
    rows.write_parquet(tmp_path / "a.parquet")
    rows.cast({"user": pl.Float64, "item": pl.Int32, "time": pl.Float64}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet: `user` holds Float64, but in a\.parquet it holds Int64"):
        quietly(table, path=tmp_path, **COLUMNS)
    rows.cast({"user": pl.Int32, "time": pl.Float64}).write_parquet(tmp_path / "b.parquet")
    assert quietly(table, path=tmp_path, **COLUMNS).users.to_list() == ["1", "2"]
    rows.drop("item").write_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="no column `item`"):
        quietly(table, path=tmp_path, **COLUMNS)


def test_a_partition_that_vanishes_or_is_damaged_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made(50_000)
    for name in ("a", "b"):
        rows.write_parquet(tmp_path / f"{name}.parquet", compression="uncompressed", row_group_size=10_000)
    whole = (tmp_path / "b.parquet").read_bytes()
    for start, length in ((len(whole) // 2, 400), (20, 40), (len(whole) - 60, 30)):
        damaged = bytearray(whole)
        damaged[start : start + length] = b"\xff" * length
        (tmp_path / "b.parquet").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"^b\.parquet: not a readable Parquet file \(") as told:
            quietly(table, path=tmp_path, **COLUMNS)
        assert "\n" not in str(told.value)
    found = reader.files_of(tmp_path)
    (tmp_path / "b.parquet").unlink()
    monkeypatch.setattr(reader, "files_of", lambda path: found)
    with pytest.raises(ValueError, match=r"^b\.parquet: not a readable Parquet file \(No such file"):
        quietly(table, path=tmp_path, **COLUMNS)


@pytest.mark.usefixtures("small")
def test_a_quote_that_breaks_late_is_named_by_its_line(tmp_path: Path) -> None:
    lines = ["user,item,time", *(f"u{i % 9},i{i % 5},{i}" for i in range(500)), 'u1,"i2"x,7', "u1,i1,9"]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"log\.csv:502: "):
        quietly(table, path=tmp_path / "log.csv", **COLUMNS)


@pytest.mark.usefixtures("small")
def test_a_value_that_only_the_last_piece_has_is_found_and_one_that_none_has_is_refused(tmp_path: Path) -> None:
    rows = made().with_columns(event=pl.when(pl.int_range(pl.len()) == 299).then(pl.lit("gift")).otherwise("event"))
    rows.write_parquet(tmp_path / "log.parquet")
    assert quietly(table, path=tmp_path / "log.parquet", where={"event": "gift"}, **COLUMNS).n_events == 1
    with pytest.raises(
        ValueError, match=r"no row has `event` 'sale' .* It has: \w+ \(1\d\d\), \w+ \(1\d\d\), gift \(1\)"
    ):
        quietly(table, path=tmp_path / "log.parquet", where={"event": "sale"}, **COLUMNS)


@pytest.mark.usefixtures("small")
def test_a_condition_about_all_rows_reads_all_rows(tmp_path: Path) -> None:
    rows = made().with_columns(time=pl.int_range(pl.len()))
    rows.write_parquet(tmp_path / "log.parquet")
    assert quietly(table, path=tmp_path / "log.parquet", where="time > MAX(time) - 10", **COLUMNS).n_events == 10


@pytest.mark.usefixtures("small")
def test_a_column_that_is_a_number_in_the_first_piece_alone_stays_text(tmp_path: Path) -> None:
    rows = made().with_columns(price=pl.when(pl.int_range(pl.len()) == 250).then(pl.lit("free")).otherwise("price"))
    rows.write_csv(tmp_path / "log.csv")
    as_text = quietly(table, path=tmp_path / "log.csv", where="price > '5'", **COLUMNS)
    assert as_text.n_events == len(rows.filter(pl.col("price") > "5").unique(["user", "item", "time"]))
    with pytest.raises(ValueError, match=r"`data\.where`"):
        quietly(table, path=tmp_path / "log.csv", where="price > 5", **COLUMNS)


def test_an_encoded_log_is_the_log_that_was_saved(tmp_path: Path) -> None:
    made().write_parquet(tmp_path / "log.parquet")
    log = quietly(table, path=tmp_path / "log.parquet", **COLUMNS)
    folder = tmp_path / "encoded"
    folder.mkdir()
    log.save(folder)
    same(quietly(encoded, path=folder), log)
    for name, wrong, message in (
        ("users", pl.DataFrame({"id": ["u"]}), "no column `user_id`. It has: id"),
        ("items", pl.DataFrame({"item_id": ["i0"]}), r"`item` is not in 0 … 0 at event"),
        ("items", pl.DataFrame({"item_id": ["i0"] * 15}), "the item `i0` is listed twice"),
    ):
        kept = (folder / f"{name}.parquet").read_bytes()
        wrong.write_parquet(folder / f"{name}.parquet")
        with pytest.raises(ValueError, match=message):
            quietly(encoded, path=folder)
        (folder / f"{name}.parquet").write_bytes(kept)
    (folder / "users.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"users\.parquet: not a readable Parquet file"):
        quietly(encoded, path=folder)
    with pytest.raises(ValueError, match="is no folder of an encoded log"):
        quietly(encoded, path=tmp_path / "nothing")


def given(folder: Path, data: str) -> Log:
    """The log of a recipe whose section `data` is this."""
    recipe = folder / "mine.yaml"
    recipe.write_text(
        f"include: quickstart.yaml\ndata: {data}\nindex: {{call: atomic}}\nvectors: null\neval: {{oracle: null}}\noutput_dir: run\n"
    )
    return open_recipe(load_recipe(recipe)).log


def test_a_name_with_brackets_is_that_file_and_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{{who}}{n},i{m}\n" for n in range(3) for m in range(4))
    (tmp_path / "log[1].csv").write_text("user,item\n" + rows.replace("{who}", "right"))
    (tmp_path / "log1.csv").write_text("user,item\n" + rows.replace("{who}", "wrong"))
    assert given(tmp_path, "{call: table, path: 'log[1].csv'}").users[0] == "right0"
    shutil.rmtree("run")
    (tmp_path / "log[1].csv").unlink()
    assert given(tmp_path, "{call: table, path: 'log[1].csv'}").users[0] == "wrong0"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{call: table, path: []}", r"`data.path` .*: the list of paths is empty"),
        ("{call: table, path: log.csv, items_path: []}", r"`data.items_path` .*: the list of paths is empty"),
        ("{call: recbole, path: 'r*'}", r"`data.path` .*: it takes one path, and .* stands for 2: r1, r2. Name one"),
    ],
)
def test_paths_that_stand_for_none_or_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("user,item\nu,a\nu,b\n")
    for name in ("r1", "r2"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=message):
        given(tmp_path, data)


def test_a_pattern_may_stand_for_a_single_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r1").mkdir()
    rows = "".join(f"u{n}\ti{m}\t{m}\n" for n in range(3) for m in range(4))
    (tmp_path / "r1" / "a.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + rows)
    assert given(tmp_path, "{call: recbole, path: 'r*'}").n_users == 3
