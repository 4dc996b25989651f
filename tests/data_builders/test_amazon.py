"""Amazon reviews of three years' layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rectune.data_builders.amazon import amazon

from tests.data_builders.small import counts, quietly


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


def test_items_of_2014_in_json_are_read_as_json(tmp_path: Path) -> None:
    (tmp_path / "Soap_5.json").write_text('{"reviewerID": "u", "asin": "a", "overall": 5.0, "unixReviewTime": 1}')
    meta = '{"asin": "a", "title": "Smile \\ud83d\\ude00 A\\/B \\ud83d", "categories": "Books"}'
    (tmp_path / "meta_Soap.json").write_text(meta)
    log = quietly(amazon, path=tmp_path, year=2014, user_core=1, item_core=1)
    assert log.items.row(0)[1:4] == ("Smile \U0001f600 A/B \ufffd", "", "Books")
    (tmp_path / "meta_Soap.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"meta_Soap.json:1: an item must be an object of fields"):
        quietly(amazon, path=tmp_path, year=2014)


def test_a_user_of_white_space_is_none_in_every_layout(tmp_path: Path) -> None:
    rows = [{"reviewerID": who, "asin": "a", "overall": 5.0, "unixReviewTime": 1} for who in ("u", " ", "")]
    (tmp_path / "Soap_5.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "meta_Soap.json").write_text(json.dumps({"asin": "a", "title": "Tea"}))
    with pytest.raises(ValueError, match=r"Soap_5.json: `user` is empty in 2 rows, the first is data row 2"):
        quietly(amazon, path=tmp_path, year=2014, user_core=1, item_core=1)
