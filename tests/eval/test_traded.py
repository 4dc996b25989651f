"""What a stage gave up for the top of its lists is said in words."""

from __future__ import annotations

from rectune.eval.page import traded


def evaluation(step: int, ndcg: float, deep: float, coverage: float) -> dict[str, float]:
    return {
        "step": step,
        "eval_ndcg@10": ndcg,
        "eval_recall@10": 0.5,
        "eval_recall@50": deep,
        "eval_coverage@10": coverage,
    }


def test_a_stage_that_gave_up_the_end_of_its_lists_says_so() -> None:
    first, best, last = evaluation(0, 0.1, 0.6, 0.5), evaluation(5, 0.2, 0.5, 0.4), evaluation(9, 0.15, 0.7, 0.6)
    assert traded([[{"loss": 1.0, "step": 1}], [first, {"loss": 0.5, "step": 3}, best, last]]) == [
        "Stage 1 bought the top of its lists: on validation rows ndcg@10 rose from .1000 to .2000 while recall@50 fell from .6000 to .5000 "
        "and coverage@10 fell from .5000 to .4000."
    ]


def test_a_stage_that_gave_up_nothing_or_won_nothing_says_nothing() -> None:
    first = evaluation(0, 0.1, 0.6, 0.5)
    assert traded([[first, evaluation(5, 0.2, 0.6, 0.5)], [first, evaluation(5, 0.05, 0.1, 0.1)], [first], []]) == []


def test_only_what_fell_is_named() -> None:
    (told,) = traded([[evaluation(0, 0.1, 0.6, 0.5), evaluation(5, 0.2, 0.7, 0.4)]])
    assert "recall@50" not in told
    assert told.endswith("while coverage@10 fell from .5000 to .4000.")
