"""The log out of Spark is the log of the local path: the same rows in the same order, the same notes and warnings."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.log.log import Log
from rectune.runtime.text_files import read_json
from tests.data_builders.test_pieces import COLUMNS, made, same

pyspark = pytest.importorskip("pyspark")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java", allow_module_level=True)

from rectune.data_builders.files import find_file  # noqa: E402
from rectune.data_builders.spark import spark  # noqa: E402
from rectune.data_builders.table import table  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    builder = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "3")
    )
    builder = builder.config("spark.sql.files.maxPartitionBytes", "60000").config(
        "spark.sql.files.openCostInBytes", "1000"
    )
    session = builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


def told(builder: Callable[..., Log], **keys: Any) -> tuple[Log, list[str]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        log = builder(**keys)
    return log, [str(one.message) for one in found if type(one.message).__name__ == "LogWarning"]


def both(path: Path, **keys: Any) -> Log:
    """The log by both ways, compared."""
    here, said = told(table, path=path, **keys)
    there, again = told(spark, path=str(path), **keys)
    same(there, here)
    assert there.notes == here.notes
    assert said == again
    return there


def parts(table: pl.DataFrame, folder: Path, *, each: int = 500) -> Path:
    """A table in several files, each of several row groups, so that Spark reads them in several tasks."""
    folder.mkdir(parents=True)
    for number, part in enumerate(table.iter_slices(each)):
        part.write_parquet(folder / f"part-{number:03d}.parquet", row_group_size=100)
    return folder


@pytest.mark.parametrize(("core", "repeats"), [((0, 0), "keep"), ((6, 0), "first"), ((5, 5), "last")])
def test_events_with_everything_that_can_be_odd(tmp_path: Path, core: tuple[int, int], repeats: str) -> None:
    """Twice the same event, equal times, out of order, white space around ids, words for a missing id, one that has a third of all."""
    rng = np.random.default_rng(core[0])
    rows = made(2000, seed=core[0]).with_columns(rating=pl.Series(rng.integers(1, 6, 2000)).cast(pl.Float64))
    odd = pl.int_range(pl.len()) % 7
    rows = rows.with_columns(
        user=pl.when(odd == 0)
        .then(pl.format(" {}\u2003", "user"))
        .when(odd == 1)
        .then(pl.lit("N/A"))
        .otherwise("user"),
        item=pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("café")).otherwise("item"),
    )
    folder = parts(pl.concat([rows, rows.head(50)]), tmp_path / "log")
    items = pl.DataFrame({"sku": ["i3", "café", "i1", "i99"], "title": ["Three", "Caf&eacute;", "", "Nobody's"]})
    items.write_csv(tmp_path / "items.csv")
    shelf = {"items_path": tmp_path / "items.csv", "item_id": "sku", "title": "title"} if core[0] else {}
    log = both(folder, **COLUMNS, rating="rating", repeats=repeats, user_core=core[0], item_core=core[1], **shelf)
    assert log.notes["duplicate_events"] > 50
    assert any("may stand for a missing one" in warning for warning in log.notes["warnings"])
    assert any("not in time order" in warning for warning in log.notes["warnings"])


@pytest.mark.parametrize("kind", ["numbers", "texts", "shuffled"])
def test_without_times_the_order_of_files_and_rows_is_that_of_events(tmp_path: Path, kind: str) -> None:
    rows = made(1200).drop("time")
    if kind != "shuffled":
        rows = rows.with_columns(item=pl.col("item").str.slice(1).cast(pl.Int64) if kind == "numbers" else "item")
        rows = rows.sort("user", "item")
    log = both(parts(rows, tmp_path / "log", each=300), user="user", item="item")
    assert bool(log.notes.get("warnings")) == (kind != "shuffled")


@pytest.mark.parametrize("kind", [pl.Datetime("us"), pl.Datetime("us", "UTC"), pl.Date, pl.String])
def test_times_of_every_kind(tmp_path: Path, kind: Any) -> None:
    rows = made(600).with_columns(time=(pl.col("time") * (86400 * 1_000_000 if kind == pl.Date else 1_234_567)) if kind.is_temporal() else pl.col("time"))  # fmt: skip
    rows = rows.with_columns(
        time=pl.col("time").cast(pl.Datetime("us")).cast(kind) if kind.is_temporal() else pl.col("time").cast(kind)
    )
    both(parts(rows, tmp_path / "log"), **COLUMNS)


def test_csv_in_several_tasks_conditions_and_words_for_missing(tmp_path: Path) -> None:
    rows = made(3000)
    (tmp_path / "log").mkdir()
    for number, part in enumerate(rows.iter_slices(1500)):
        part.write_csv(tmp_path / "log" / f"{number}.csv")
    keys = {**COLUMNS, "missing": ["u3"]}
    here, said = told(table, path=tmp_path / "log", where={"event": "buy"}, **keys)
    there, again = told(spark, path=str(tmp_path / "log"), format="csv", where="event = 'buy'", **keys)
    same(there, here)
    assert said == again
    assert there.notes == here.notes
    assert there.notes["rows_without_user_or_item"] > 0


def test_folders_and_quotes_are_texts_as_they_are(tmp_path: Path) -> None:
    for user in ("007", "7"):
        (tmp_path / "log" / f"user={user}").mkdir(parents=True)
        rows = made(20).select("item", "time")
        rows.write_parquet(tmp_path / "log" / f"user={user}" / "part.parquet")
    assert both(tmp_path / "log", **COLUMNS).users.to_list() == ["007", "7"]
    (tmp_path / "log.csv").write_text('user,item,time\nu,"x ""y""",1\nu,"a, b",2\n')
    here, there = told(table, path=tmp_path / "log.csv", **COLUMNS)[0], told(spark, path=str(tmp_path / "log.csv"), format="csv", **COLUMNS)[0]  # fmt: skip
    same(there, here)
    assert there.items["item_id"].to_list() == ['x "y"', "a, b"]


def test_a_table_and_a_query(tmp_path: Path, session: Any) -> None:
    rows = made(400).unique(["user", "time"], keep="first", maintain_order=True)
    rows.write_parquet(tmp_path / "log.parquet")
    session.read.parquet(str(tmp_path / "log.parquet")).createOrReplaceTempView("shop_events")
    here = told(table, path=tmp_path / "log.parquet", **COLUMNS)[0]
    same(told(spark, table="shop_events", **COLUMNS)[0], here)
    same(told(spark, sql="SELECT user, item, time FROM shop_events", **COLUMNS)[0], here)


def test_movielens_is_the_same_by_both_ways(tmp_path: Path, data: Callable[[str], Path]) -> None:
    rows = pl.read_csv(find_file(data("ml-latest-small"), "ratings.csv")).rename(
        {"userId": "user", "movieId": "item", "timestamp": "time"}
    )
    log = both(parts(rows, tmp_path / "log", each=30_000), **COLUMNS, rating="rating", user_core=5, item_core=5)
    assert log.n_events == 90_274


def test_scientific_is_the_same_by_both_ways(tmp_path: Path, data: Callable[[str], Path]) -> None:
    sequences = read_json(find_file(data("amazon18_scientific"), "*.inter.json"))
    rows = pl.DataFrame(
        [(user, str(item)) for user, items in sequences.items() for item in items],
        schema=["user", "item"],
        orient="row",
    )
    log = both(parts(rows, tmp_path / "log", each=20_000), user="user", item="item")
    assert (log.n_users, log.n_items, log.n_events) == (8_317, 4_344, 58_492)


@pytest.mark.parametrize(
    ("change", "keys", "message"),
    [
        ({"user": None}, {}, r"log: `user` is empty in 600 rows"),
        ({"time": float("nan")}, {}, r"log: `time` is not a number in 600 rows"),
        (
            {"time": "noon"},
            {},
            r"log: `time` is not a number in 600 rows, e\.g\. 'noon'\. Make it a number or a timestamp in `data\.sql`",
        ),
        ({"user": 1.5}, {}, r"log: `user` holds double, and an id is a text or a whole number"),
        ({}, {"time": "when"}, r"log: no column `when` \(named by `data\.time`\)"),
        ({}, {"where": "price <"}, r"log: .*(PARSE|syntax)"),
        ({}, {"where": "event = 'gift'"}, r"log: the log is empty"),
        ({}, {"user_core": 500}, r"log: no event is left at user_core=500"),
        ({}, {"sql": "SELECT 1"}, r"`data`: give one of `path`, `table` and `sql`"),
    ],
)
def test_what_makes_no_log_is_one_line(
    tmp_path: Path, change: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    rows = made(600).with_columns(
        pl.lit(value, dtype=pl.String if value is None else None).alias(name) for name, value in change.items()
    )
    folder = parts(rows, tmp_path / "log")
    with pytest.raises(ValueError, match=message) as error:
        told(spark, path=str(folder), scratch=tmp_path / "scratch", **{**COLUMNS, **keys})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "scratch").exists() or not any((tmp_path / "scratch").iterdir())


def test_damaged_and_missing_files_are_one_line(tmp_path: Path) -> None:
    folder = parts(made(2000), tmp_path / "log")
    file = folder / "part-001.parquet"
    whole = bytearray(file.read_bytes())
    whole[200:900] = b"\xff" * 700
    file.write_bytes(whole)
    for path, message in ((folder, r"log: "), (tmp_path / "nothing", r"nothing: .*PATH_NOT_FOUND")):
        with pytest.raises(ValueError, match=message) as error:
            told(spark, path=str(path), **COLUMNS)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500
