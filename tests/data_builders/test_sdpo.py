"""S-DPO's files: histories, candidates, and users told from rows that go on where the one before ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rectune.data_builders.already_split import GivenRow, given_log
from rectune.data_builders.sdpo import sdpo

from rectune.log.log import Log, LogWarning
from rectune.log.splits.given import given
from tests.data_builders.small import quietly
from tests.offered import files, rows_of


def test_rows_users_and_candidates_are_the_files(tmp_path: Path) -> None:
    split = given(sdpo(path=files(tmp_path)), max_history=10)
    titles = split.log.items["title"].to_list()
    for n, part in enumerate(("train", "validation", "test")):
        rows, asked = split.part(part), rows_of(12, n)  # type: ignore[arg-type]
        offered = split.candidates(rows)
        assert offered is not None
        assert len(rows) == len(asked) == 36
        assert len(set(rows.user)) == 12
        for i, row in enumerate(asked):
            assert "::".join(titles[item] for item in split.history(rows, i)) == row["historyList"]
            assert titles[split.targets(rows)[i]] == row["trueSelection"]
            assert [titles[item] for item in offered.lists()[i]] == row["itemList"]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (None, "row 2 of `train`: candidates are given for some rows only"),
        (["B", "D"], "row 2 of `train`: the target `C` is none of its candidates"),
        (["C", "D", "C"], "row 2 of `train`: its candidates name an item twice"),
        (["C", "E"], "item `E` is not in the item file"),
    ],
)
def test_candidates_of_a_builder_of_ones_own_are_checked(second: list[str] | None, said: str) -> None:
    rows = [
        GivenRow("train", "u", ["A"], "B", candidates=["B", "D"]),
        GivenRow("train", "u", ["A", "B"], "C", candidates=second),
    ]
    items = pl.DataFrame({"item_id": list("ABCD"), "title": list("ABCD")})
    with pytest.raises(ValueError, match=said):
        given_log(rows, items, source="own")


def test_candidates_are_saved_with_the_log_and_belong_to_the_given_rows_alone(tmp_path: Path) -> None:
    from rectune.log.splits.leave_one_out import leave_one_out

    log = sdpo(path=files(tmp_path))
    (tmp_path / "log").mkdir()
    log.save(tmp_path / "log")
    again = given(Log.load(tmp_path / "log"))
    first, second = (split.candidates(split.test) for split in (given(log), again))
    assert first is not None
    assert second is not None
    assert first.lists() == second.lists()
    other = leave_one_out(log)
    assert other.candidates(other.validation) is None  # rows with other targets offer nothing


def test_without_a_training_file_users_of_the_validation_file_train(tmp_path: Path) -> None:
    with pytest.warns(LogWarning, match=r"there is no training file .*; 30 rows of the validation file train"):
        log = sdpo(path=files(tmp_path, train=False), validation=0.2)
    split = given(log)
    assert [len(split.part(part)) for part in ("train", "validation", "test")] == [30, 6, 36]  # type: ignore[arg-type]
    assert not set(split.train.user) & set(split.validation.user)
    assert log.notes["training_rows_from"]


def test_the_published_files(data: Any) -> None:
    split = given(quietly(sdpo, path=data("sdpo_lastfm")))
    assert (split.log.n_users, split.log.n_items) == (244, 4606)
    assert [len(split.part(part)) for part in ("train", "validation", "test")] == [2581, 186, 2495]  # type: ignore[arg-type]
    offered = split.candidates(split.test)
    assert offered is not None
    assert set(offered.lengths.tolist()) == {20}
    assert all(target in some for target, some in zip(split.targets(split.test), offered.lists(), strict=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trueSelection": "Nobody"}, r"bands-test\.json: row 2: `trueSelection`, 'Nobody', is none of `itemList`"),
        ({"itemList": ["A", "A"], "trueSelection": "A"}, r"row 2: `itemList` names an item twice"),
        ({"itemList": "A::B", "trueSelection": "A"}, r"row 2: `itemList` must hold titles, got 'A::B'"),
        ({"historyList": "A::::B"}, r"row 2: `historyList` must hold titles"),
        ({"historyList": None}, r"row 2: `historyList` must hold titles"),
        ({"trueSelection": 3}, r"row 2: `trueSelection` must hold titles"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    folder = files(tmp_path)
    rows = rows_of(12, 2)
    rows[1] = {**rows[1], **change}
    (folder / "bands-test.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=said):
        sdpo(path=folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1}', "must hold a list of rows"),
        ('[{"historyList": "A"}]', "row 1: a row needs"),
        ("[]", None),
        ("[", "bands-test"),
    ],
)
def test_a_file_of_another_form_is_named(tmp_path: Path, text: str, said: str | None) -> None:
    folder = files(tmp_path)
    (folder / "bands-test.json").write_text(text)
    if said is None:  # no test row: the split says it
        with pytest.raises(ValueError, match="no rows"):
            given(sdpo(path=folder))
        return
    with pytest.raises(ValueError, match=said):
        sdpo(path=folder)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    (files(tmp_path) / "bands-val.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"\*-val\.json"):
        sdpo(path=tmp_path)
    with pytest.raises(ValueError, match=r"has 12 users, so that none are left to train beside a share of 0\.99"):
        sdpo(path=files(tmp_path / "two", train=False), validation=0.99)
    for share in (0.0, 1.0, -1):
        with pytest.raises(ValueError, match=r"data\.validation"):
            sdpo(path=tmp_path, validation=share)
