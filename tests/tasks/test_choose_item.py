"""Choosing among candidates: what the prompt lists, in an order that tells nothing, and what alone may be listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rectune.data_builders.sdpo import sdpo

from rectune.decoding.shelf import Shelf
from rectune.indexing.titles import titles
from rectune.log.split import Split
from rectune.log.splits.given import given
from rectune.runtime.ragged import Ragged
from rectune.tasks.asked_histories import event_less, outside_of
from rectune.tasks.choose_item import choose_item
from tests.offered import files


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return given(sdpo(path=files(tmp_path)))


def test_candidates_stand_in_an_order_of_their_own(split: Split) -> None:
    index, offered = titles(split), split.candidates(split.test)
    rows = choose_item(split, index, "test")
    assert offered is not None
    assert rows.candidates is not None
    assert rows.judged == "choice"
    places = []
    for i, some in enumerate(offered.lists()):
        shown = rows.candidates.lists()[i]
        assert sorted(shown) == sorted(some)
        assert [view["name"] for view in rows.variables(i)["candidates"]] == [index.titles[item] for item in shown]
        places.append(shown.index(int(rows.target[i])))
    assert set(places) == {0, 1, 2, 3, 4}
    # The same for anybody who asks with these candidates, whatever they are sorted by and whoever comes next.
    histories = [split.history(split.test, i).tolist() for i in range(len(rows))]
    asked = outside_of(split).split(histories, candidates=[sorted(some, reverse=True) for some in offered.lists()])
    again = choose_item(asked, index, "test")
    assert again.candidates is not None
    assert again.candidates.lists() == rows.candidates.lists()
    assert again.variables(3)["history"] == rows.variables(3)["history"]


def test_taken_rows_keep_their_candidates(split: Split) -> None:
    rows = choose_item(split, titles(split), "test")
    some = rows.take(np.array([5, 2]))
    assert rows.candidates is not None
    assert some.candidates is not None
    assert some.candidates.lists() == [rows.candidates.lists()[i] for i in (5, 2)]
    assert some.variables(0) == rows.variables(5)


def test_rows_without_candidates_are_refused(split: Split) -> None:
    index = titles(split)
    with pytest.raises(ValueError, match="Give `candidates` with each history"):
        choose_item(outside_of(split).split([[1, 2]]), index, "test")
    nobody = choose_item(event_less(split.log.items), index, "test")
    assert len(nobody) == 0
    assert nobody.judged == "choice"


def test_a_shelf_holds_what_is_both_a_candidate_and_allowed() -> None:
    offered = Ragged.of([[3, 1], [2]])
    assert Shelf().among(offered).only == [[3, 1], [2]]
    assert Shelf(only=[[1, 5], [4]], hidden=[[], [0]]).among(offered).only == [[1], []]
    assert Shelf(hidden=[[], [0]]).among(offered).hidden == [[], [0]]
    shelf = Shelf(hidden=[[1], [2]])
    assert shelf.among(None) is shelf
