"""Builders: small files of each layout, their traps, and the public sets where they are present."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rectune.data_builders import files
from rectune.data_builders import movielens as movielens_module
from rectune.data_builders.amazon import amazon
from rectune.data_builders.lc_rec import lc_rec
from rectune.data_builders.minionerec import minionerec
from rectune.data_builders.movielens import movielens
from rectune.data_builders.recbole import recbole
from rectune.data_builders.synthetic import oracle, synthetic
from rectune.data_builders.table import table
from rectune.data_builders.tallrec import tallrec
from rectune.eval.baselines.markov import markov
from rectune.eval.baselines.scoring import list_rows

from rectune.log import Log
from rectune.split import given, leave_one_out

RATINGS = "userId,movieId,rating,timestamp\n1,10,4.0,100\n1,20,3.5,90\n2,10,1.0,50\n"
MOVIES = 'movieId,title,genres\n10,"Good, the Bad (1966)",Western|Drama\n20,Heat &amp; Dust,(no genres listed)\n30,Nobody saw it,Drama\n'


def quietly(build: Any, **arguments: Any) -> Log:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log: Log = build(**arguments)
    return log


def counts(log: Log) -> tuple[int, int, int]:
    return log.n_users, log.n_items, log.interactions.height


# ------------------------------------------------------------------------------------------------------------- table


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
        ('user,item\nu,"a\n', "log.csv:2: unexpected end of data"),
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


# --------------------------------------------------------------------------------------------------------- movielens


def archive(folder: Path) -> Path:
    file = folder / "ml-latest-small.zip"
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("ml-latest-small/ratings.csv", RATINGS)
        out.writestr("ml-latest-small/movies.csv", MOVIES)
    return file


def test_movielens_from_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path / "cache"))
    log = quietly(movielens, size="latest-small", path=archive(tmp_path))
    assert counts(log) == (2, 3, 3)
    assert log.items["genres"].to_list() == ["Western, Drama", "", "Drama"]


def test_a_zip_that_leads_out_of_its_folder_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "evil.zip"
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("../escaped.csv", "x")
    with pytest.raises(ValueError, match=r"the path `../escaped.csv` leads out of the archive"):
        movielens(size="latest-small", path=file)
    assert not list(tmp_path.rglob("escaped.csv"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on the loopback that serves a folder."""
    served = tmp_path / "served"
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(served))

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", served
    server.shutdown()
    server.server_close()


def test_the_download_is_checked_and_kept(
    tmp_path: Path, site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = site
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(movielens_module, "SITE", address)
    digest = hashlib.md5(archive(served).read_bytes()).hexdigest()
    (served / "ml-latest-small.zip.md5").write_text(f"MD5 (ml-latest-small.zip) = {digest}\n")
    assert counts(quietly(movielens, size="latest-small")) == (2, 3, 3)
    for file in served.iterdir():
        file.unlink()
    assert counts(quietly(movielens, size="latest-small")) == (2, 3, 3)  # from the cache


def test_a_checksum_that_differs_leaves_nothing_behind(tmp_path: Path, site: tuple[str, Path]) -> None:
    address, served = site
    archive(served)
    with pytest.raises(ValueError, match=r"its MD5 is \w+, but 0123 was expected"):
        files.download(f"{address}/ml-latest-small.zip", tmp_path / "cache" / "x.zip", md5="0123")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("size", "folder", "expected"),
    [("latest-small", "ml-latest-small", (610, 9742, 100_836)), ("100k", "ml-100k", (943, 1682, 100_000))],
)
def test_real_movielens_has_its_published_counts(
    data: Any, size: Any, folder: str, expected: tuple[int, int, int]
) -> None:
    log = quietly(movielens, size=size, path=data(folder))
    assert counts(log) == expected
    if size == "100k":
        assert "Misérables, Les (1995)" in log.items["title"].to_list()
        assert (
            log.items.filter(pl.col("title").str.starts_with("Toy Story"))["genres"][0]
            == "Animation, Children's, Comedy"
        )


def test_table_reads_ml_latest_small_with_its_counts(data: Any) -> None:
    folder = data("ml-latest-small")
    log = quietly(
        table, path=folder / "ratings.csv.gz", user="userId", item="movieId", time="timestamp", rating="rating",
        items_path=folder / "movies.csv.gz", title="title",
    )  # fmt: skip
    assert counts(log) == (610, 9742, 100_836)
    assert len(np.unique(log.item_codes)) == 9724  # 18 films nobody rated


# ------------------------------------------------------------------------------------------------------------ amazon


@pytest.mark.parametrize("year", [2014, 2018, 2023])
def test_amazon_layouts(tmp_path: Path, year: Any) -> None:
    rows = [("u", "a", 5.0, 100), ("u", "b", 1.0, 50), ("v", "a", 4.0, 70)]
    names = (
        ("user_id", "parent_asin", "rating", "timestamp")
        if year == 2023
        else ("reviewerID", "asin", "overall", "unixReviewTime")
    )
    end = "jsonl" if year == 2023 else "json"
    (tmp_path / f"Soap{'' if year == 2023 else '_5'}.{end}").write_text(
        "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)
    )
    meta = {
        2014: {
            "asin": "a",
            "title": "Tea &amp; Co",
            "brand": "B",
            "categories": [["X", "Y"], ["Z"]],
            "description": "d",
        },
        2018: {"asin": "a", "title": "Tea &amp; Co", "brand": "B", "category": ["X", "Y"], "description": ["d"]},
        2023: {
            "parent_asin": "a",
            "title": "Tea &amp; Co",
            "store": "B",
            "categories": ["X", "Y"],
            "description": ["d"],
        },
    }[year]
    other = {**meta, ("parent_asin" if year == 2023 else "asin"): "unbought"}
    lines = [repr(m) if year == 2014 else json.dumps(m) for m in (meta, other)]
    (tmp_path / f"meta_Soap.{end}").write_text("\n".join(lines))
    log = quietly(amazon, path=tmp_path, year=year, user_core=1, item_core=1)
    assert counts(log) == (2, 2, 3)
    assert log.items.row(0) == ("a", "Tea & Co", "B", "X, Y", "d")
    assert log.interactions["time"].to_list() == [50.0, 100.0, 70.0]


def test_amazon_of_another_year_says_so(tmp_path: Path) -> None:
    (tmp_path / "Soap.jsonl").write_text('{"reviewerID": "u"}')
    (tmp_path / "meta_Soap.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"Soap.jsonl:1: no field 'user_id' \(layout of 2023\). Is `year` right"):
        amazon(path=tmp_path, year=2023)


def test_real_gift_cards(data: Any) -> None:
    log = quietly(amazon, path=data("amazon18_gift_cards"), year=2018, user_core=1, item_core=1)
    assert counts(log) == (458, 148, 2969)  # 2,972 lines, 3 of them the same user, item and second again
    assert log.notes["duplicate_events"] == 3
    assert not log.items["title"].str.contains("&amp;").any()


# --------------------------------------------------------------------------------- lc_rec, recbole, given splits


def test_lc_rec_layout(tmp_path: Path) -> None:
    (tmp_path / "X.inter.json").write_text('{"0": [2, 0, 1], "7": [1, 2]}')
    (tmp_path / "X.item.json").write_text(
        '{"0": {"title": "A", "brand": ""}, "1": {"title": "B"}, "2": {"title": "C"}, "9": {"title": "D"}}'
    )
    log = quietly(lc_rec, path=tmp_path)
    assert counts(log) == (2, 3, 5)
    assert [log.items["title"][int(i)] for i in log.item_codes] == ["C", "A", "B", "B", "C"]
    assert log.times is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("amazon18_scientific", (8317, 4344, 58_492)),
        ("letter/Beauty", (22_363, 12_101, 198_502)),
        ("letter/Instruments", (24_772, 9922, 206_153)),
    ],
)
def test_real_lc_rec_sets(data: Any, name: str, expected: tuple[int, int, int]) -> None:
    log = quietly(lc_rec, path=data(name))
    assert counts(log) == expected
    assert not log.items["title"].str.contains("&amp;").any()


def test_recbole_layout(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\ta\t5\t2\nu\tb\t4\t1\n"
    )
    (tmp_path / "x.item").write_text(
        'item_id:token\tmovie_title:token_seq\tclass:token_seq\na\tToy "Story\tDrama\nb\tHeat\tCrime\n'
    )
    log = quietly(recbole, path=tmp_path)
    assert log.items["title"].to_list() == ['Toy "Story', "Heat"]
    assert log.interactions["rating"].to_list() == [4.0, 5.0]
    (tmp_path / "x.inter").write_text("user_id\titem_id\nu\ta\n")
    with pytest.raises(ValueError, match=r"x.inter:1: header `user_id` has no type"):
        recbole(path=tmp_path)


def test_recbole_prefers_a_field_named_title(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\nu\ta\n")
    (tmp_path / "x.item").write_text("item_id:token\tapp_name:token\ttitle:token_seq\na\tshort\tThe long title\n")
    assert quietly(recbole, path=tmp_path).items["title"].to_list() == ["The long title"]
    assert quietly(recbole, path=tmp_path, title="app_name").items["title"].to_list() == ["short"]


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


def test_real_recbole_sets(data: Any) -> None:
    assert counts(quietly(recbole, path=data("recbole_ml-100k"))) == (943, 1682, 100_000)
    with pytest.raises(ValueError, match=r"test.inter.gz:6018: 5 fields, but 4 columns"):
        recbole(path=data("recbole_atomic_toy"))  # its last row really has a field too many


def test_minionerec_layout(tmp_path: Path) -> None:
    for folder in ("train", "valid", "test", "index"):
        (tmp_path / folder).mkdir()
    head = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\n"
    (tmp_path / "train" / "x.csv").write_text(head + "u,\"['A']\",B,[0],1,x,y\nu,\"['A', 'B']\",C,\"[0, 1]\",2,x,y\n")
    (tmp_path / "valid" / "x.csv").write_text(head + "u,\"['B', 'C']\",A,\"[1, 2]\",0,x,y\n")
    (tmp_path / "test" / "x.csv").write_text(head + "v,\"['C']\",C,[2],2,x,y\n")
    items = {str(i): {"title": t, "description": "['one', 'two']", "categories": ""} for i, t in enumerate("ABC")}
    (tmp_path / "index" / "x.item.json").write_text(json.dumps(items))
    split = given(minionerec(path=tmp_path))
    assert [split.history(split.train, i).tolist() for i in range(2)] == [[0], [0, 1]]
    assert split.train_sequences()[1].tolist() == [0, 1, 2]
    assert split.targets(split.test).tolist() == [2]
    assert split.log.items["description"][0] == "one two"


def test_real_minionerec(data: Any) -> None:
    split = given(quietly(minionerec, path=data("minionerec")))
    assert (len(split.train), len(split.validation), len(split.test)) == (8350, 4532, 4533)
    assert split.log.n_items == 3686
    targets = split.targets(split.test)
    assert sum(int(targets[i] in split.seen(split.test, i)) for i in range(4533)) == 128


def test_tallrec_layout(tmp_path: Path) -> None:
    row = {
        "instruction": "…",
        "input": 'User Preference: "A, The", "B"\nUser Unpreference: "C"\nWhether the user will like the target movie "D "X""?',
        "output": "Yes.",
    }
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps([row, {**row, "output": "No."}]))
    split = given(tallrec(path=tmp_path))
    assert [split.log.items["title"][int(i)] for i in split.history(split.test, 0)] == ["A, The", "B", "C"]
    assert split.log.items["title"][int(split.targets(split.test)[0])] == 'D "X"'
    assert split.log.ratings[split.test.target].tolist() == [1.0, 0.0]
    (tmp_path / "test.json").write_text(json.dumps([{**row, "output": "Perhaps"}]))
    with pytest.raises(ValueError, match=r"test.json: row 1: `input` or `output` is not of TALLRec's form"):
        tallrec(path=tmp_path)


def test_a_folder_without_the_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file `\*.inter.json`"):
        lc_rec(path=tmp_path)


# --------------------------------------------------------------------------------------------------------- synthetic


def test_the_shop_is_the_same_for_a_seed_and_another_for_another() -> None:
    one, same, other = (synthetic(users=50, items=120, categories=4, longest=12, seed=s) for s in (1, 1, 2))
    assert one.interactions.equals(same.interactions)
    assert not one.interactions.equals(other.interactions)


def test_the_oracle_gives_probabilities_that_come_true() -> None:
    log = synthetic(users=2000, items=150, categories=5, longest=12, seed=0)
    split = leave_one_out(log)
    chances = oracle(split, split.test, users=2000, items=150, categories=5, longest=12, seed=0)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    own = chances[np.arange(len(chances)), split.targets(split.test)]
    # how often the target comes true at what was stated: the mean of p(target) equals the mean of sum of p²
    assert own.mean() == pytest.approx((chances**2).sum(axis=1).mean(), abs=4 * own.std() / np.sqrt(len(own)))
    for i in range(50):
        assert chances[i, split.seen(split.test, i)].max() == 0


def test_markov_gets_at_most_seventy_percent_of_the_oracle() -> None:
    log = synthetic()
    split = leave_one_out(log)
    place = list_rows(split, split.test, markov(split).score, width=10)[0].place
    best = list_rows(split, split.test, lambda rows: oracle(split, rows), width=10)[0].place
    value = [float(np.where(p < 10, 1 / np.log2(p + 2.0), 0).mean()) for p in (place, best)]
    assert value[0] <= 0.7 * value[1]
    assert value[1] > 0.3


@pytest.mark.parametrize("sizes", [{"users": 0}, {"items": 20}, {"categories": 99}, {"shortest": 9, "longest": 3}])
def test_sizes_that_make_no_shop_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="synthetic: "):
        synthetic(**sizes)
