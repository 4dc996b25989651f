"""Lists out of Spark are those of `rectune rank`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.bundle import on_spark
from rectune.bundle.everybody import rank_everybody
from rectune.bundle.recommender import Recommender
from tests.exports import GPT2, SHOP, exported, tune

pyspark = pytest.importorskip("pyspark")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java", allow_module_level=True)

USERS = 90


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable  # the interpreter of the workers
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tune(tmp_path_factory.mktemp("shop"), {**SHOP, "model": GPT2}))


@pytest.fixture(scope="module")
def users(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ids, rng = Recommender.from_pretrained(model).items["item_id"].to_list(), np.random.default_rng(0)
    rows = [{"user": n, "items": [ids[i] for i in rng.integers(0, len(ids), rng.integers(0, 9))]} for n in range(USERS)]
    rows[3]["items"] = ["gone", *rows[3]["items"], "gone too"]
    rows[4]["items"], rows[5]["items"] = [], None
    file = tmp_path_factory.mktemp("users") / "users.parquet"
    pl.DataFrame(rows, schema={"user": pl.Int64, "items": pl.List(pl.String)}).write_parquet(file)
    return file


@pytest.mark.parametrize("together", [7, 4096])
@pytest.mark.parametrize("partitions", [1, 4])
def test_lists_are_those_of_rank(
    session: Any, model: Path, users: Path, tmp_path: Path, partitions: int, together: int
) -> None:
    recommender = Recommender.from_pretrained(model)
    deny = recommender.items["item_id"].to_list()[:3]
    rank_everybody(recommender, users, tmp_path / "lists", k=5, deny=deny)
    ours = pl.read_parquet(tmp_path / "lists" / "part-*.parquet").sort(pl.col("user").cast(int))
    table = session.read.parquet(str(users)).repartition(partitions)
    found = on_spark.rank_on_spark(table, str(model), k=5, deny=deny, together=together)
    assert dict(found.dtypes) == {
        "user": "string",
        "items": "array<string>",
        "scores": "array<float>",
        "unknown": "int",
    }
    theirs = pl.from_dicts([row.asDict() for row in found.collect()]).sort(pl.col("user").cast(int))
    assert theirs["user"].to_list() == ours["user"].to_list()
    assert theirs["items"].to_list() == ours["items"].to_list()
    np.testing.assert_allclose(theirs["scores"].to_list(), ours["scores"].to_list(), atol=1e-5)
    assert theirs["unknown"].to_list() == [0, 0, 0, 2, *[0] * (USERS - 4)]


def test_a_path_below_the_working_folder_is_found_wherever_java_was_started(
    session: Any, model: Path, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    found = on_spark.rank_on_spark(session.read.parquet(str(users)), model.name, k=3)
    assert found.count() == USERS


def test_what_cannot_be_ranked_is_refused_before_anything_is(session: Any, model: Path, users: Path) -> None:
    table = session.read.parquet(str(users))
    with pytest.raises(ValueError, match=r"the table of users: no column `items`\. It has: user, events"):
        on_spark.rank_on_spark(table.withColumnRenamed("items", "events"), str(model))
    with pytest.raises(ValueError, match="the table of users: column `items` holds string"):
        on_spark.rank_on_spark(table.selectExpr("user", "items[0] as items"), str(model))
    with pytest.raises(ValueError, match="k"):
        on_spark.rank_on_spark(table, str(model), k=10_000)
    with pytest.raises(ValueError, match="`together`: got 0"):
        on_spark.rank_on_spark(table, str(model), together=0)
    with pytest.warns(UserWarning, match="1 of 1 ids in `deny` are not in the catalogue, `no_such`"):
        on_spark.rank_on_spark(table, str(model), k=3, deny=["no_such"])
    with pytest.raises(FileNotFoundError):
        on_spark.rank_on_spark(table, str(model / "away"))


def test_a_row_without_a_user_is_said(session: Any, model: Path) -> None:
    table = session.createDataFrame([("a", ["i1"]), (None, ["i2"])], "user string, items array<string>")
    with pytest.raises(Exception, match="a row has no user"):
        on_spark.rank_on_spark(table, str(model), k=3).collect()
