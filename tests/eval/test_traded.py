"""What a stage gave up for the top of its lists is said in words, and that it won nothing."""

from __future__ import annotations

from rectune.eval.sentences import traded, unimproved

BEST = {
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_ndcg@10",
    "greater_is_better": True,
    "ranked_rows": 1000,
}
LAST = {"ranked_rows": 1000}


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
    log = [first, {"loss": 0.5, "step": 3}, best, last]
    assert traded([[{"loss": 1.0, "step": 1}], log], [LAST, BEST]) == [
        "Stage 1 bought the top of its lists: on validation rows ndcg@10 rose from .1000 to .2000 while recall@50 fell from .6000 to .5000 "
        "and coverage@10 fell from .5000 to .4000."
    ]
    assert traded([log], [LAST]) == []  # the weights that were kept are the last


def test_a_stage_that_gave_up_nothing_or_won_nothing_says_nothing() -> None:
    first = evaluation(0, 0.1, 0.6, 0.5)
    logs = [[first, evaluation(5, 0.2, 0.6, 0.5)], [first, evaluation(5, 0.05, 0.1, 0.1)], [first], []]
    assert traded(logs, [LAST] * 4) == []
    assert traded([[first, evaluation(5, 0.11, 0.58, 0.46)]], [LAST]) == []  # within what 1,000 rows tell apart


def test_only_what_fell_is_named_and_the_lowest_loss_may_choose() -> None:
    first, other = evaluation(0, 0.1, 0.6, 0.5), evaluation(5, 0.2, 0.7, 0.4)
    (told,) = traded([[first, other]], [LAST])
    assert "recall@50" not in told
    assert told.endswith("while coverage@10 fell from .5000 to .4000.")
    by_loss = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    first["step"] = 2
    assert traded([[{**first, "eval_loss": 1.0}, {**other, "eval_loss": 2.0}]], [by_loss]) == []
    assert len(traded([[{**first, "eval_loss": 3.0}, {**other, "eval_loss": 2.0}]], [by_loss])) == 1


def test_a_stage_that_made_nothing_better_says_so() -> None:
    first, best, last = (
        evaluation(0, 0.098, 0.6, 0.5),
        evaluation(50, 0.0955, 0.58, 0.5),
        evaluation(99, 0.09, 0.5, 0.5),
    )
    assert unimproved([[], [first, {"loss": 1.0, "step": 3}, best, last]], [LAST, BEST]) == [
        "Stage 1 made nothing better: on validation rows ndcg@10 was .0980 before its first step and is .0955 with the weights that it kept."
    ]
    better = {**best, "eval_ndcg@10": 0.0981}
    assert unimproved([[first, better, last]], [BEST]) == []
    assert len(unimproved([[first, better, last]], [LAST])) == 1  # the last weights are kept, by whatever figure
    assert unimproved([[first, last, {**better, "step": 150}]], [LAST]) == []
    assert len(unimproved([[first, {**last, "eval_ndcg@10": 0.098}]], [BEST])) == 1  # nor worse
    assert unimproved([[{**first, "step": 50}, best]], [BEST]) == []  # nobody measured what was before
    assert unimproved([[first]], [BEST]) == []
    by_loss = {"metric_for_best_model": "loss", "greater_is_better": None}
    assert unimproved([[{"step": 0, "eval_loss": 1.0}, {"step": 9, "eval_loss": 0.9}]], [by_loss]) == []
    assert len(unimproved([[{"step": 0, "eval_loss": 1.0}, {"step": 9, "eval_loss": 1.1}]], [by_loss])) == 1
    by_auc = {"metric_for_best_model": "auc", "greater_is_better": None}  # the library takes the greater
    assert unimproved([[{"step": 0, "eval_auc": 0.5}, {"step": 9, "eval_auc": 0.6}]], [by_auc]) == []


def test_loss_and_rankings_of_a_step_are_one_evaluation() -> None:
    by_loss = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "ranked_rows": 1000}
    log = [evaluation(0, 0.1, 0.6, 0.5)]
    for step, loss, ndcg, deep in ((50, 2.0, 0.2, 0.6), (100, 1.0, 0.3, 0.6), (150, 3.0, 0.4, 0.3)):
        log += [{"step": step, "eval_loss": loss}, evaluation(step, ndcg, deep, 0.5)]
    assert traded([log], [by_loss]) == []  # step 100 is kept, which gave nothing up
    assert len(traded([log], [LAST])) == 1


def test_what_was_before_the_first_step_is_nothing_that_a_stage_keeps() -> None:
    first, best = evaluation(0, 0.3, 0.6, 0.5), evaluation(50, 0.2, 0.6, 0.3)
    assert traded([[first, best]], [BEST]) == []  # nothing rose
    assert len(traded([[first, {**best, "eval_ndcg@10": 0.4}]], [BEST])) == 1
