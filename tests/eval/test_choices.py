"""What is written freely, judged as S-DPO judges it, on texts that were judged by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rectune.eval.choices import _free

from rectune.runtime.ragged import Ragged

TITLES = ["Muse", "Queen", "Queensrÿche", "Air", "Low"]
# offered, target, text -> valid, hit
ROWS = [
    ([0, 1, 3], 0, "Muse", 1, 1),
    ([0, 1, 3], 0, "I would say: Muse.", 1, 1),
    ([0, 1, 3], 0, "Queen", 1, 0),
    ([0, 1, 3], 0, "Muse or Queen", 0, 0),  # two stand in the text
    ([0, 1, 3], 0, "muse", 0, 0),  # letter case counts
    ([0, 1, 3], 0, "Low", 0, 0),  # none of the candidates
    ([1, 2], 2, "Queensrÿche", 0, 0),  # holds the other one's name as well: never valid
    ([0, 2], 2, "Queensrÿche", 1, 1),
    ([3, 4], 3, "", 0, 0),
]


def evidence(**written: list[str]) -> Any:
    split = SimpleNamespace(test=SimpleNamespace(user=np.arange(len(ROWS)) // 2))
    return SimpleNamespace(written=written, split=split, index=SimpleNamespace(titles=TITLES), task=Task(ROWS), seed=0)


class Task(list[Any]):
    """Rows with their targets."""

    target = np.array([row[1] for row in ROWS])


def test_valid_and_hit_are_shares_of_all_rows() -> None:
    given = evidence(untuned=["Muse"] * len(ROWS), tuned=[row[2] for row in ROWS])
    found = _free(given, Ragged.of([row[0] for row in ROWS]), 100)
    assert found is not None
    assert found["rows"] == len(ROWS)
    tuned = found["table"]["tuned model"]
    assert tuned["valid"][0] == pytest.approx(sum(row[3] for row in ROWS) / len(ROWS))
    assert tuned["hit ratio@1"][0] == pytest.approx(sum(row[4] for row in ROWS) / len(ROWS))
    assert found["table"]["untuned model"]["hit ratio@1"][0] == pytest.approx(6 / 9)
    assert found["table"]["untuned model"]["valid"][0] == pytest.approx(7 / 9)


def test_a_model_that_writes_nothing_has_no_such_table() -> None:
    given = evidence(untuned=[], tuned=[])
    assert _free(given, Ragged.of([row[0] for row in ROWS]), 100) is None


def test_names_that_are_no_words_are_not_looked_for_in_texts() -> None:
    given = evidence(tuned=[row[2] for row in ROWS])
    given.index = SimpleNamespace(titles=[])
    assert _free(given, Ragged.of([row[0] for row in ROWS]), 100) is None
