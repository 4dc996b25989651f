"""Layouts of LC-Rec, RecBole, MiniOneRec and TALLRec: small files and the public sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rectune.data_builders.lc_rec import lc_rec
from rectune.data_builders.minionerec import minionerec
from rectune.data_builders.recbole import recbole
from rectune.data_builders.tallrec import tallrec

from rectune.log.splits.given import given
from tests.data_builders.small import counts, quietly


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
