"""An engine's lists beside ours: figures by hand, what an item may be called, and one line for a wrong file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rectune import Recommender
from rectune.bundle.alike import Asked, compare, kendall
from rectune.bundle.compare import main, read_lists
from rectune.bundle.recommender import Recommendation
from tests.bundle.test_bundle import GPT2, NAMES
from tests.exports import SHOP, SHORT, exported, tune


def ours(*items: str) -> list[Recommendation]:
    return [Recommendation(item, item.upper(), -float(place), True) for place, item in enumerate(items)]


def test_figures_by_hand() -> None:
    one = Asked([], ["b", "a", "x", None, "d", "a"], [-1.5, -0.5, -4.0, -5.0, -6.0, -9.0])
    two = Asked([], ["a"], [])
    found = compare([one, two], [ours("a", "b", "c", "d"), ours("a", "b")], 2)
    # First list: {a, b} of {b, a}; b a d stand at 1 0 3 of ours, so two pairs of three are in order.
    assert found.lists == 2
    assert found.overlap == (1.0 + 0.5) / 2
    assert found.first == 0.5
    assert found.tau == pytest.approx((2 - 1) / 3)
    assert found.places == pytest.approx((1 + 1 + 0 + 0) / 4)  # a, b and d of the first list, a of the second
    assert found.scores == pytest.approx((0.5 + 0.5 + 3.0) / 3)  # a -0.5 for 0, b -1.5 for -1, d -6 for -3
    assert found.unreal == pytest.approx(1 / 7)
    assert found.repeated == pytest.approx(1 / 7)


def test_only_the_first_k_of_both_lists_overlap() -> None:
    assert compare([Asked([], ["c", "d", "a", "b"], [])], [ours("a", "b", "c")], 2).overlap == 0.0
    assert compare([Asked([], ["c", "d", "a", "b"], [])], [ours("a", "b", "c")], 4).overlap == 1.0  # of three, all


def test_kendalls_tau_by_hand() -> None:
    assert kendall([0, 1, 2]) == 1.0
    assert kendall([5, 3, 1]) == -1.0
    assert kendall([0, 2, 1]) == pytest.approx(1 / 3)


def test_nothing_in_common_is_none_and_no_zero() -> None:
    found = compare([Asked([], ["z"], [])], [ours("a", "b")], 2)
    assert (found.overlap, found.first, found.tau, found.places, found.scores) == (0.0, 0.0, None, None, None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"items": ["a"]}', "lists.jsonl:1: a line must be"),
        ('{"items": "a", "listed": []}', "lists.jsonl:1: a line must be"),
        ('{"items": [3], "listed": []}', "lists.jsonl:1: a line must be"),
        ('{"items": [], "listed": [1]}', "lists.jsonl:1: a line must be"),
        ('{"items": [], "listed": [[true]]}', "lists.jsonl:1: a line must be"),
        ('{"items": [], "listed": ["a"], "scores": []}', "`scores` must be a number for each of the 1 listed"),
        ('{"items": [], "listed": ["a"], "scores": [NaN]}', "`scores` must be a number"),
        ('{"items": [], "listed": ["a"], "scores": null}', "`scores` must be a number"),
        ('{"items"', "lists.jsonl:1: not valid JSON"),
        ("", "the file holds no list"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "lists.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        read_lists(tmp_path / "lists.jsonl", {"a": "a"})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {
        **SHOP,
        "tasks": [{"call": "next_item", "template": NAMES}],
        "model": GPT2,
        "stages": [{**SHORT, "max_length": 128}],
        "rank": {**SHOP["rank"], "template": NAMES, "prior": {"call": "prior", "weight": 7}},
    }
    return exported(tune(tmp_path_factory.mktemp("compare"), settings))


def asked(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


@pytest.mark.heavy
def test_our_own_lists_are_alike_however_items_are_called(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    it = Recommender.from_pretrained(bundle)
    items = {row["item_id"]: row for row in map(json.loads, (bundle / "items.jsonl").read_text().splitlines())}
    rows = []
    for history in (["i3", "i7"], ["i1"], []):
        lists = it.recommend(history, 6, hide_seen=False, prior_weight=0)
        called = [
            (item.item_id, items[item.item_id]["name"], items[item.item_id]["tokens"])[place % 3]
            for place, item in enumerate(lists)
        ]
        rows.append({"items": history, "listed": called, "scores": [item.score for item in lists]})
    same = {"overlap": 1.0, "first": 1.0, "tau": 1.0, "places": 0.0, "unreal": 0.0, "repeated": 0.0, "lists": 3, "k": 6}
    assert main([asked(tmp_path / "lists.jsonl", rows), str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("scores") == pytest.approx(0.0, abs=1e-4)  # batches of other lengths
    assert found == same
    rows[0]["listed"][1] = "<a_999>"
    assert main([asked(tmp_path / "lists.jsonl", rows), str(bundle)]) == 0
    out = capsys.readouterr().out
    assert "3 lists\n" in out
    assert "overlap     0.9444  of our first 6 items are among their first 6\n" in out
    assert "unreal      0.0556  of what they list is no item of the catalogue\n" in out


@pytest.mark.heavy
def test_the_prior_and_seen_items_are_left_out_or_not(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    it, histories = Recommender.from_pretrained(bundle), [["i3", "i7"], ["i1"]]
    lists = it.recommend(histories, 6)  # with the prior, without what was seen
    rows = [
        {"items": history, "listed": [history[0], *(item.item_id for item in row)]}
        for history, row in zip(histories, lists, strict=True)
    ]
    file = asked(tmp_path / "lists.jsonl", rows)
    found = []
    for more in (["--prior", "--hide-seen"], ["--prior"], ["--hide-seen"]):
        assert main([file, str(bundle), "--json", *more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["overlap"] == found[0]["first"] == 1.0
    assert found[1]["first"] < 1.0
    assert found[2]["overlap"] < 1.0


@pytest.mark.heavy
def test_errors_are_one_line(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = asked(tmp_path / "strange.jsonl", [{"items": ["nobody"], "listed": ["i3"]}])
    good = asked(tmp_path / "good.jsonl", [{"items": ["i3"], "listed": ["i3"]}])
    for command, message in (
        ([str(tmp_path / "none.jsonl"), str(bundle)], "none.jsonl` was not found"),
        ([strange, str(bundle)], "no item with item_id `nobody`"),
        ([good, str(tmp_path)], "is neither a finished run folder"),
        ([good, str(bundle), "--k", "99"], "k = 99"),
    ):
        assert main(command) == 1
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
