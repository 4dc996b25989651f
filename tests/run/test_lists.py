"""Lists made elsewhere become rows of the table, by the same protocols."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectune.baselines.popularity import popularity
from rectune.baselines.scoring import list_rows
from rectune.cli import main
from rectune.run.judged import HIDDEN, SHOWN
from rectune.run.run import open_run
from tests.runs import results

Entries = list[dict[str, Any]]


@pytest.fixture
def run(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished[1], tmp_path / "run"))


def written(file: Path, entries: Entries) -> str:
    file.write_text("\n".join(json.dumps(entry) for entry in entries))
    return str(file)


def popular(folder: Path, *, width: int = 1000) -> Entries:
    """What our own popularity lists, seen items and all, with its scores."""
    split = open_run(folder).split
    score = popularity(split).score
    _, shown = list_rows(split, split.test, score, width=width)
    scores, ids = score(split.test), split.log.items["item_id"]
    return [
        {
            "user": split.log.users[int(split.test.user[i])],
            "items": [ids[int(item)] for item in listed if item >= 0],
            "scores": [float(scores[i, item]) for item in listed if item >= 0],
        }
        for i, listed in enumerate(shown.items)
    ]


def test_the_same_lists_from_a_file_have_the_same_figures(run: Path, tmp_path: Path) -> None:
    with_scores = popular(run)
    bare = [{"user": entry["user"], "items": entry["items"]} for entry in reversed(with_scores)]
    files = [written(tmp_path / "theirs.jsonl", with_scores), written(tmp_path / "bare.jsonl", bare)]
    assert main(["eval", str(run), "--lists", files[0], "--lists", files[1], "--traceback"]) == 0
    found = results(run)
    for protocol in (HIDDEN, SHOWN):
        table = found["protocols"][protocol]
        assert table["theirs"] == table["popularity"]
        assert table["bare"]["recall@5"][0] >= table["popularity"]["recall@5"][0]  # without scores nothing is tied
        against = found["tuned_against"][protocol]
        assert against["differences"]["theirs"] == against["differences"]["popularity"]
        assert against["best_baseline"] not in ("theirs", "bare")
    assert list(found["protocols"][HIDDEN])[-2:] == ["untuned model", "tuned model"]
    assert found["made_elsewhere"] == {"theirs": 90, "bare": 90}
    assert "`theirs` was read from a file" in (run / "report.html").read_text()


def test_what_rectune_recommend_prints_is_read(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = open_run(run).split
    ids = split.log.items["item_id"]
    asked = [
        {
            "user": split.log.users[int(split.test.user[i])],
            "items": [ids[int(item)] for item in split.history(split.test, i)],
        }
        for i in range(len(split.test))
    ]
    capsys.readouterr()
    users = written(tmp_path / "users.jsonl", asked)
    assert main(["recommend", str(run), "--users", users, "--json", "--k", "5"]) == 0
    (tmp_path / "ours.jsonl").write_text(capsys.readouterr().out)
    assert main(["eval", str(run), "--lists", str(tmp_path / "ours.jsonl")]) == 0
    table = results(run)["protocols"][HIDDEN]
    for metric in ("recall@1", "recall@5", "ndcg@5"):
        assert table["ours"][metric] == pytest.approx(table["tuned model"][metric], abs=1e-12)


def first(entries: Entries, **changed: Any) -> Entries:
    return [{**entries[0], **changed}, *entries[1:]]


WRONG: dict[str, tuple[Callable[[Entries], Entries], str]] = {
    "an unknown item": (lambda e: first(e, items=["i1", "i999"], scores=None), "theirs.jsonl:1: the catalogue has no item 'i999'."),
    "an item twice": (lambda e: first(e, items=["i1", "i2", "i1"], scores=None), "theirs.jsonl:1: item 'i1' is listed twice."),
    "a user twice": (lambda e: [*e, e[0]], "theirs.jsonl:61: user 'u"),
    "an unknown user": (lambda e: first(e, user="nobody"), "theirs.jsonl:1: the log has no user 'nobody'."),
    "a user missing": (lambda e: e[1:], "theirs.jsonl: 1 of 60 test users have no list, such as"),
    "scores that rise": (lambda e: first(e, items=["i1", "i2"], scores=[1, 2]), "theirs.jsonl:1: the scores rise along the list"),
    "too few scores": (lambda e: first(e, items=["i1", "i2"], scores=[1]), "theirs.jsonl:1: 2 items need as many scores"),
    "no number": (lambda e: first(e, items=["i1"], scores=[float("nan")]), "theirs.jsonl:1: 1 items need as many scores"),
    "no items": (lambda e: [{"user": "u1"}], 'theirs.jsonl:1: got {'),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_in_one_line(
    wrong: str, finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished[1]
    before = (run / "report.json").read_bytes()
    change, told = WRONG[wrong]
    assert main(["eval", str(run), "--lists", written(tmp_path / "theirs.jsonl", change(popular(run, width=5)))]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error
    assert (run / "report.json").read_bytes() == before


def test_a_name_of_the_table_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), "--lists", written(tmp_path / "popularity.jsonl", popular(run))]) == 1
    assert "the table has a row `popularity` already. Rename the file." in capsys.readouterr().err


def test_empty_and_short_lists_count_as_not_listed(run: Path, tmp_path: Path) -> None:
    entries = [{"user": entry["user"], "items": []} for entry in popular(run, width=1)]
    assert main(["eval", str(run), "--lists", written(tmp_path / "nothing.jsonl", entries)]) == 0
    table = results(run)["protocols"][HIDDEN]["nothing"]
    assert np.allclose(table["recall@5"], 0)


def test_several_test_rows_a_user_are_refused_where_lists_are_given(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--split", "{call: by_time, max_history: 10, validation: 0.2, test: 0.2}", "--eval.oracle", "null"]
    assert main(["train", str(quick_recipe), *more, "--traceback"]) == 0
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--lists", written(tmp_path / "theirs.jsonl", [])]) == 1
    assert "a list is told by its user, but this split has" in capsys.readouterr().err
