"""What a report says of a run that goes on from another."""

from __future__ import annotations

from typing import Any

import pytest
from rectune.eval.sentences import earlier_lines

GROWN = {"kept": 3, "new": 1, "gone": 0}


def lines(**more: Any) -> list[str]:
    return earlier_lines({"rows": 9, "earlier": {"name": "old (run)", "grown": GROWN, **more}})


def test_the_untuned_model_is_named() -> None:
    assert earlier_lines({"rows": 9}) == []
    told = (
        "The run goes on from old (run): the untuned model is that one's. 3 items keep their names and 1 got new ones."
    )
    assert lines() == [told]


@pytest.mark.parametrize(
    ("difference", "word"),
    [
        ([-0.2, -0.3, -0.1], "It forgot -.2000, 95 % interval -.3000 to -.1000."),
        ([0.2, 0.1, 0.3], "It is better there by +.2000, 95 % interval +.1000 to +.3000."),
        ([-0.2, -0.3, 0.1], "That it forgot is not shown: -.2000, 95 % interval -.3000 to +.1000."),
    ],
)
def test_what_was_forgotten_is_said_by_the_interval(difference: list[float], word: str) -> None:
    found = {"earlier": [0.5, 0.4, 0.6], "now": [0.3, 0.2, 0.4], "difference": difference}
    told = lines(rows=4, gone=1, trained=2, leaked=0, metric="ndcg@5", **{"ndcg@5": found})
    assert told[1] == (
        "On 4 test rows of the earlier run (2 were trained since, the targets of 1 are no items any more) ndcg@5 was .5000 and is .3000. "
        + word
    )
    assert len(told) == 2


def test_rows_that_are_all_gone_and_targets_that_leaked_are_said() -> None:
    told = lines(rows=0, gone=0, trained=7, leaked=5)
    assert (
        told[1] == "5 of the 9 test targets are events that the earlier model was tuned on: both models are flattered."
    )
    assert told[2] == "What it forgot is not known: no test row of the earlier run is left (7 were trained since)."
