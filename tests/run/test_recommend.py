"""What `rectune recommend` lists, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rectune.cli import main


@pytest.mark.heavy
def test_recommend_lists_only_what_may_be_listed(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = finished
    files = {}
    for name, ids in (("stock", ["i1", "i2", "i4", "gone"]), ("adult", ["i2"]), ("strange", ["gone"])):
        files[name] = tmp_path / f"{name}.txt"
        files[name].write_text("\n".join(ids) + "\n")
    (tmp_path / "users.jsonl").write_text('{"user": 1, "items": ["i3"], "candidates": ["i5", "i4", "i3"]}\n')

    def listed(*options: str) -> dict[str, float]:
        capsys.readouterr()
        assert main(["recommend", str(folder), *options, "--json", "--traceback"]) == 0
        return {item["item_id"]: item["score"] for item in json.loads(capsys.readouterr().out)["items"]}

    with pytest.warns(UserWarning, match="1 of 4 ids in `allow` are not in the catalogue, `gone`"):
        stock = listed("--items", "i3", "--allow", str(files["stock"]))
    assert set(stock) == {"i1", "i2", "i4"}
    with pytest.warns(UserWarning, match="`allow`"):
        both = listed("--items", "i3", "--allow", str(files["stock"]), "--deny", str(files["adult"]))
    assert both == {name: pytest.approx(score) for name, score in stock.items() if name != "i2"}
    few = listed("--users", str(tmp_path / "users.jsonl"))
    assert set(few) == {"i4", "i5"}  # i3 was seen
    assert few["i4"] == pytest.approx(stock["i4"])
    capsys.readouterr()
    with pytest.warns(UserWarning, match="1 of 1 ids in `allow`"):
        assert main(["recommend", str(folder), "--items", "i3", "--allow", str(files["strange"])]) == 1
    assert "error: no item may be listed" in capsys.readouterr().err


@pytest.mark.heavy
def test_recommend_by_ids_by_titles_for_nobody_and_for_a_file(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rectune.run.run import open_run

    _, folder = finished
    items = open_run(folder).log.items
    capsys.readouterr()
    lists = []
    for history in (
        ["--items", "i3", "i7"],
        ["--titles", *items.filter(items["item_id"].is_in(["i3", "i7"]))["title"].to_list()],
    ):
        assert main(["recommend", str(folder), *history, "--k", "4", "--json", "--traceback"]) == 0
        lists.append([item["item_id"] for item in json.loads(capsys.readouterr().out)["items"]])
    assert lists[0] == lists[1]
    assert len(set(lists[0])) == 4
    assert not {"i3", "i7"} & set(lists[0])
    assert main(["recommend", str(folder), "--items", "--traceback"]) == 0
    assert capsys.readouterr().out.count("[i") == 5
    (tmp_path / "users.jsonl").write_text('{"user": "anna", "items": ["i3", "i7"]}\n\n{"user": 5, "items": []}\n')
    assert (
        main(["recommend", str(folder), "--users", str(tmp_path / "users.jsonl"), "--k", "4", "--json", "--traceback"])
        == 0
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["user"] for row in rows] == ["anna", 5]
    assert [item["item_id"] for item in rows[0]["items"]] == lists[0]
    assert all(item["score"] <= 0 for item in rows[0]["items"])
    for wrong, message in (
        (["--items", "i3", "x9"], "error: the catalogue has no item with item_id `x9`"),
        (["--items", "i3", "--k", "11"], "error: k = 11, but it must be from 1 to 10: 10 beams are searched"),
        (["--items", "i3", "--titles", "x"], "error: give the history in exactly one way"),
        ([], "error: give the history in exactly one way"),
    ):
        assert main(["recommend", str(folder), *wrong]) == 1
        assert message in capsys.readouterr().err
