"""Lists for everybody: the same whatever the file, the shards, the processes, and wherever the job was stopped."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.bundle import everybody
from rectune.bundle.everybody import rank_everybody, read_shards, shards_of
from rectune.bundle.recommender import Recommender
from rectune.cli import main
from tests.exports import GPT2, SHOP, exported, tune
from tests.runs import with_processes
from tests.test_cli import fails

USERS = 70


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(tmp_path_factory.mktemp("shop"), {**SHOP, "model": GPT2})


@pytest.fixture(scope="module")
def recommender(run: Path) -> Recommender:
    return Recommender.from_pretrained(run)


@pytest.fixture(scope="module")
def rows(recommender: Recommender) -> list[dict[str, Any]]:
    ids, rng = recommender.items["item_id"].to_list(), np.random.default_rng(0)
    made = [
        {"user": f"u{n}", "items": [ids[i] for i in rng.integers(0, len(ids), rng.integers(0, 9))]}
        for n in range(USERS)
    ]
    made[3]["items"] = ["gone", *made[3]["items"], "gone too"]
    made[5]["items"] = []
    return made


@pytest.fixture(scope="module")
def users(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("users") / "users.parquet"
    pl.DataFrame(rows).write_parquet(file)
    return file


def lists_in(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(file) for file in sorted(folder.glob("part-*.parquet"))])


def test_lists_are_those_of_recommend(
    recommender: Recommender, rows: list[dict[str, Any]], users: Path, tmp_path: Path
) -> None:
    found = rank_everybody(recommender, users, tmp_path / "lists", k=5, size=16)
    assert found == {"lists": USERS, "shards": 5, "kept": 0, "unknown": 2}
    about = json.loads((tmp_path / "lists" / "lists.json").read_text())
    assert about["complete"]
    assert about["lists"] == USERS
    lists = lists_in(tmp_path / "lists")
    assert lists["user"].to_list() == [row["user"] for row in rows]
    known = set(recommender.items["item_id"])
    expected = recommender.recommend([[item for item in row["items"] if item in known] for row in rows], 5)
    assert lists["items"].to_list() == [[item.item_id for item in some] for some in expected]
    scores = [[item.score for item in some] for some in expected]
    np.testing.assert_allclose(lists["scores"].to_list(), scores, atol=1e-5)


def test_allowed_denied_and_seen_items(
    recommender: Recommender, rows: list[dict[str, Any]], users: Path, tmp_path: Path
) -> None:
    ids = recommender.items["item_id"].to_list()
    rank_everybody(recommender, users, tmp_path / "few", k=3, allow=ids[:10], deny=ids[:2])
    listed = set(lists_in(tmp_path / "few")["items"].explode().to_list())
    assert listed <= set(ids[2:10])
    rank_everybody(recommender, users, tmp_path / "seen", k=6, hide_seen=False)
    seen = [
        set(row["items"]) & set(items)
        for row, items in zip(rows, lists_in(tmp_path / "seen")["items"].to_list(), strict=True)
    ]
    assert any(seen)
    assert all(len(items) == 6 for items in lists_in(tmp_path / "seen")["items"].to_list())


def test_every_form_of_file_holds_the_same_users(rows: list[dict[str, Any]], users: Path, tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n\n" for row in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.replace(b"\n", b"\r\n")))
    folder = tmp_path / "folder"
    (folder / "day=1").mkdir(parents=True)
    pl.DataFrame(rows[:30]).write_parquet(folder / "day=1" / "a.parquet")
    pl.DataFrame(rows[30:]).write_parquet(folder / "z.parquet")
    (folder / "_SUCCESS").touch()
    for place in (users, tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", folder):
        shards = shards_of(place, 16)
        assert [shard.number for shard in shards] == list(range(len(shards)))
        parts = list(read_shards(shards))
        assert [name for _, names, _ in parts for name in names] == [row["user"] for row in rows]
        assert [history for _, _, some in parts for history in some] == [row["items"] for row in rows]
        some = [shard for shard in shards if shard.number % 2]  # what another process reads
        assert [names for _, names, _ in read_shards(some)] == [names for shard, names, _ in parts if shard.number % 2]


def test_a_stopped_job_goes_on_and_an_ended_one_does_nothing(
    recommender: Recommender, users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank_everybody(recommender, users, tmp_path / "whole", k=5, size=16)

    class Killed(BaseException):
        pass

    plain, made = everybody.os.replace, []

    def replace(source: Any, target: Any) -> None:
        if str(target).endswith(".parquet"):
            if len(made) == 2:
                raise Killed
            made.append(target)
        plain(source, target)

    monkeypatch.setattr(everybody.os, "replace", replace)
    with pytest.raises(Killed):
        rank_everybody(recommender, users, tmp_path / "lists", k=5, size=16)
    monkeypatch.undo()
    assert list((tmp_path / "lists").glob("*.partial"))
    assert not json.loads((tmp_path / "lists" / "lists.json").read_text())["complete"]
    assert rank_everybody(recommender, users, tmp_path / "lists", k=5, size=16)["kept"] == 32
    whole, again = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("whole", "lists"))
    assert whole == again

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(everybody, "_write", never)
    assert rank_everybody(recommender, users, tmp_path / "lists", k=5, size=16)["kept"] == USERS


def test_lists_of_another_model_or_ranking_are_refused(recommender: Recommender, users: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    rank_everybody(recommender, users, tmp_path / "lists", k=5)
    bundle = recommender.bundle
    for other in (replace(bundle, rank=replace(bundle.rank, scores="catalogue")), replace(bundle, prior_weight=7.0)):
        with pytest.raises(ValueError, match="made of another `model`"):
            rank_everybody(Recommender(other), users, tmp_path / "lists", k=5)
    hub = [everybody.identity(Recommender(replace(bundle, commit=commit)), "anna/shop") for commit in ("a", "b")]
    assert hub[0] != hub[1]


def test_a_job_is_complete_only_with_every_file(
    recommender: Recommender, users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = everybody._write

    def write(recommender: Any, file: Path, *rest: Any) -> int:
        return 0 if file.name == "part-000002.parquet" else plain(recommender, file, *rest)

    monkeypatch.setattr(everybody, "_write", write)
    with pytest.raises(ValueError, match=r"1 files such as part-000002\.parquet went away"):
        rank_everybody(recommender, users, tmp_path / "lists", k=5, size=16)
    assert not json.loads((tmp_path / "lists" / "lists.json").read_text())["complete"]


@pytest.mark.heavy
def test_processes_share_the_work_and_give_the_same_files(run: Path, users: Path, tmp_path: Path) -> None:
    command = ["rectune", "rank", str(run), "--users", str(users), "--k", "5", "--shard", "16"]
    for name, processes in (("one", 1), ("three", 3)):
        out = with_processes(processes, *command, "--to", str(tmp_path / name))
        assert out.count("70 lists in 5 files") == 1
        assert out.count("2 items of histories are not in the catalogue") == 1
    one, three = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "three"))
    assert one == three


def test_a_bundle_ranks_as_its_run_does(run: Path, recommender: Recommender, users: Path, tmp_path: Path) -> None:
    bundle = exported(run, "--to", str(tmp_path / "export"))
    assert main(["rank", str(bundle), "--users", str(users), "--to", str(tmp_path / "lists"), "--k", "5"]) == 0
    rank_everybody(recommender, users, tmp_path / "own", k=5)
    assert lists_in(tmp_path / "lists")["items"].to_list() == lists_in(tmp_path / "own")["items"].to_list()


def test_what_is_wrong_is_one_line_and_nothing_is_half_written(
    run: Path, users: Path, rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pl.DataFrame(rows)
    frame.rename({"items": "history"}).write_parquet(tmp_path / "other.parquet")
    frame.with_columns(items=pl.lit("i1")).write_parquet(tmp_path / "text.parquet")
    frame.with_columns(user=pl.when(pl.col("user") == "u9").then(None).otherwise("user")).write_parquet(
        tmp_path / "nobody.parquet"
    )
    (tmp_path / "cut.parquet").write_bytes(users.read_bytes()[:-40])
    page = bytearray(users.read_bytes())
    page[60:160] = bytes(100)
    (tmp_path / "page.parquet").write_bytes(page)
    (tmp_path / "bad.jsonl").write_text('{"user": "a", "items": []}\n{"user": "b", "items": "i1"}\n')
    (tmp_path / "latin.jsonl").write_bytes('{"user": "a", "items": []}\n{"user": "é", "items": []}\n'.encode("latin-1"))
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "users.csv").write_text("user,items\n")
    (tmp_path / "nothing").mkdir()
    for name, message in {
        "gone.parquet": "`--users`: ", "other.parquet": "other.parquet: no column `items`. It has: user, history", "text.parquet": "column `items` holds String",
        "nobody.parquet": "nobody.parquet: row 9 has no user", "cut.parquet": "cut.parquet: no whole Parquet file", "page.parquet": "page.parquet: ",
        "bad.jsonl": "bad.jsonl:2: a line must be", "latin.jsonl": "latin.jsonl:2: not UTF-8 text", "empty.jsonl": "the file names no user",
        "users.csv": "is no .parquet, .jsonl or .jsonl.gz file", "nothing": "is no .parquet, .jsonl",
    }.items():  # fmt: skip
        place = tmp_path / f"to-{name}"
        assert message in fails(
            capsys, "rank", str(run), "--users", str(tmp_path / name), "--to", str(place), "--shard", "1"
        )
        assert not place.exists()
    (tmp_path / "u[1].parquet").write_bytes(users.read_bytes())  # a name, and no pattern
    assert main(["rank", str(run), "--users", str(tmp_path / "u[1].parquet"), "--to", str(tmp_path / "brackets")]) == 0
    place = tmp_path / "lists"
    assert main(["rank", str(run), "--users", str(users), "--to", str(place)]) == 0
    capsys.readouterr()
    for more, message in (
        (["--k", "3"], "holds lists that were made of another `k`"), (["--show-seen"], "made of another `hide_seen`"), (["--k", "100"], "k = 100, but it must be from 1"),
        (["--shard", "0"], "`--shard`: got 0"), (["--shard", "5"], "made of another `users_in_a_shard`"),
    ):  # fmt: skip
        assert message in fails(capsys, "rank", str(run), "--users", str(users), "--to", str(place), *more)
    assert "holds other files" in fails(capsys, "rank", str(run), "--users", str(users), "--to", str(run))
    assert "is no folder" in fails(capsys, "rank", str(run), "--users", str(users), "--to", str(users))
