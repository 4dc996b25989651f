"""The table builder: formats, traps, and a public log."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rectune.data_builders.table import table

from tests.data_builders.small import MOVIES, RATINGS, counts, quietly


def test_a_csv_log_with_items(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(RATINGS)
    with gzip.open(tmp_path / "items.csv.gz", "wt") as file:
        file.write(MOVIES)
    log = quietly(
        table, path=tmp_path / "log.csv", user="userId", item="movieId", time="timestamp", rating="rating",
        items_path=tmp_path / "items.csv.gz", title="title",
    )  # fmt: skip
    assert counts(log) == (2, 3, 3)
    assert log.items["title"].to_list() == ["Good, the Bad (1966)", "Heat & Dust", "Nobody saw it"]
    assert log.interactions["time"].to_list() == [90.0, 100.0, 50.0]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "tsv", "jsonl.gz"])
def test_other_formats_hold_the_same_log(tmp_path: Path, kind: str) -> None:
    frame = pl.DataFrame({"user": ["u", "u", "v"], "item": ["a", "b", "a"], "time": [1, 2, 3]})
    file = tmp_path / f"log.{kind}"
    if kind == "parquet":
        frame.write_parquet(file)
    elif kind == "tsv":
        frame.write_csv(file, separator="\t")
    else:
        file.write_bytes(
            gzip.compress(frame.write_ndjson().encode()) if kind.endswith("gz") else frame.write_ndjson().encode()
        )
    assert table(path=file, time="time").interactions.rows() == [(0, 0, 1.0), (0, 1, 2.0), (1, 0, 3.0)]


def test_a_data_set_of_the_hub_is_read_by_name(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["u", "u"], "item": ["a", "b"]})
    (tmp_path / "set").mkdir()
    frame.write_parquet(tmp_path / "set" / "train-00000.parquet")
    assert counts(table(dataset=str(tmp_path / "set"))) == (1, 2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item\nu,a\nu\n", r"log.csv:3: 1 fields, but 2 columns \(user, item\)"),
        ("user,item\nu,a\nu,b,c\n", r"log.csv:3: 3 fields"),
        ('user,item\nu,"a\n', "log.csv:2: .*quote"),
        ('user,item\nu,a\nu,"b\nu,c\nu,d\n', r"log.csv:3: a quote is opened in this row, and never closed\. Where"),
        (
            'user,item\nu,a\n"u,b\nu,"c"\nu,d\n',
            "log.csv:3: a quote is opened in this row, and by line 4 ',' expected after '\"'",
        ),
        ('user,item\n"u\n1",a\nu\n', "log.csv:4: 1 fields"),
        ('user,item\nu,a\n"u,b\nu",c,d\n', "log.csv:3: 3 fields"),
        ("", "log.csv: the file is empty"),
        ("user,user\n", "a column name is given twice"),
        ("usr,item\nu,a\n", r"no column `user` \(named by `data.user`\). Did you mean `usr`"),
        ("user,item\n,a\n", "`user` is empty in 1 rows, the first is data row 1"),
        ("user,item\n", "the log is empty"),
    ],
)
def test_a_broken_csv_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        table(path=tmp_path / "log.csv")


def test_a_wrong_encoding_names_the_line_and_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes("user,item\nu,caf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"log.csv:2: not utf-8 text .* Say `encoding: latin-1`"):
        table(path=tmp_path / "log.csv")
    assert table(path=tmp_path / "log.csv", encoding="latin-1").items["item_id"].to_list() == ["café"]


def test_other_separators_and_no_header(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::5::100\n1::20::4::90\n")
    log = quietly(
        table,
        path=tmp_path / "ratings.dat",
        separator="::",
        columns=["u", "i", "r", "t"],
        user="u",
        item="i",
        time="t",
        rating="r",
    )
    assert log.interactions.rows() == [(0, 0, 90.0, 4.0), (0, 1, 100.0, 5.0)]
    (tmp_path / "log.csv").write_text("user;item\nu;a\nu;b\n")
    assert counts(table(path=tmp_path / "log.csv", separator=";")) == (1, 2, 2)


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.xls").write_text("x")
    with pytest.raises(ValueError, match=r"cannot tell what this is. Known endings"):
        table(path=tmp_path / "log.xls")


def test_broken_json_lines_name_the_line(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"user": 1, "item": 2}\n{"user": 1,\n')
    with pytest.raises(ValueError, match=r"log.jsonl:2: not valid JSON"):
        table(path=tmp_path / "log.jsonl")


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(RATINGS.encode() * 50)
    for name, broken in (
        ("cut", whole[:-20]),
        ("flipped", whole[:30] + b"\x00\xff\x00" + whole[33:]),
        ("none", b"text"),
    ):
        (tmp_path / f"{name}.csv.gz").write_bytes(broken)
        with pytest.raises(ValueError, match=f"{name}.csv.gz: damaged gzip file"):
            table(path=tmp_path / f"{name}.csv.gz")


def test_table_reads_ml_latest_small_with_its_counts(data: Any) -> None:
    folder = data("ml-latest-small")
    log = quietly(
        table, path=folder / "ratings.csv.gz", user="userId", item="movieId", time="timestamp", rating="rating",
        items_path=folder / "movies.csv.gz", title="title",
    )  # fmt: skip
    assert counts(log) == (610, 9742, 100_836)
    assert len(np.unique(log.item_codes)) == 9724  # 18 films nobody rated
