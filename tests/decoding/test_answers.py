"""Fixed answers: probabilities by hand, one or several tokens, with a history shared by several candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rectune.decoding.answers import (
    answer_log_probabilities,
    choice_probabilities,
    distinct_answers,
    first_tokens,
    group_prompts,
)
from rectune.decoding.engine import AnswerEngine

PROMPTS = [[1, 30, 31, 32], [1, 40]]
ANSWERS = [[[10], [11]], [[10], [11, 12]], [[10, 13], [10, 14, 15]], [[10], [10, 11]]]
HISTORY = [1, *range(50, 70)]
CANDIDATES = [[*HISTORY, 30, 31], [*HISTORY, 40], [1, 33, 34], [*HISTORY, 41, 42, 43], [5]]


@pytest.fixture(scope="module")
def model(checkpoints: dict[str, Path]) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoints["tied"]).eval()


@torch.no_grad()
def by_hand(model: Any, prompt: list[int], answer: list[int]) -> float:
    logp = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double().log_softmax(-1)
    return sum(float(logp[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))


@pytest.mark.parametrize("answers", ANSWERS)
def test_probabilities_of_answers_equal_a_plain_forward_pass(model: Any, answers: list[list[int]]) -> None:
    truth = [[by_hand(model, p, a) for a in answers] for p in PROMPTS]
    engine = AnswerEngine(model, answers, pad=0)
    np.testing.assert_allclose(np.concatenate(engine.score([[p] for p in PROMPTS])), truth, atol=1e-5)
    np.testing.assert_allclose(answer_log_probabilities(model, PROMPTS, answers, pad=0), truth, atol=1e-5)


@pytest.mark.parametrize("answers", ANSWERS)
def test_a_shared_history_is_forwarded_once(model: Any, answers: list[list[int]]) -> None:
    engine = AnswerEngine(model, answers, pad=0)
    groups = group_prompts(CANDIDATES, most=1000)
    assert sorted(map(sorted, groups)) == [[0, 1, 3], [2], [4]]
    found = engine.score([[CANDIDATES[i] for i in group] for group in groups])
    for group, rows in zip(groups, found, strict=True):
        truth = [[by_hand(model, CANDIDATES[i], a) for a in answers] for i in group]
        np.testing.assert_allclose(rows, truth, atol=1e-5)
    counts = engine.counts
    assert counts.prompt == len(HISTORY) + 3 + 1
    suffixes = 2 + 1 + 3
    longer = len({tuple(a[:n]) for a in answers for n in range(1, len(a))})  # beginnings of answers, after each prompt
    assert counts.codes == suffixes + longer * (3 + 1 + 1)


def test_groups_stay_within_the_token_budget() -> None:
    prompts = [[*HISTORY, 100 + i] for i in range(10)]
    groups = group_prompts(prompts, most=25)
    assert sorted(i for group in groups for i in group) == list(range(10))
    assert max(len(HISTORY) + len(group) for group in groups) == 25


def test_single_tokens_take_one_forward_pass(model: Any) -> None:
    engine = AnswerEngine(model, [[10], [11]], pad=0)
    engine.score([[p] for p in PROMPTS])
    assert (engine.counts.passes, engine.counts.prompt, engine.counts.codes) == (1, 6, 0)


def test_chances_are_the_ratio_of_the_two() -> None:
    logp = np.log(np.array([[0.02, 0.001], [0.5, 0.4]]))
    np.testing.assert_allclose(choice_probabilities(logp)[:, 0], [0.02 / 0.021, 0.5 / 0.9])


def test_the_papers_formula_ranks_otherwise() -> None:
    # p(yes) = .02, .5 and p(no) = .001, .4: the ratio puts the first row above, softmax of probabilities the second
    logp = np.log(np.array([[0.02, 0.001], [0.5, 0.4]]))
    paper = choice_probabilities(logp, normaliser="tallrec")[:, 0]
    np.testing.assert_allclose(paper, [1 / (1 + np.exp(0.001 - 0.02)), 1 / (1 + np.exp(0.4 - 0.5))])
    ratio = choice_probabilities(logp)[:, 0]
    assert ratio[0] > ratio[1]
    assert paper[0] < paper[1]


def test_ways_to_write_an_answer_are_added_up() -> None:
    logp = np.log(np.array([[0.1, 0.2, 0.3]]))
    np.testing.assert_allclose(choice_probabilities(logp, [0, 0, 1]), [[0.5, 0.5]])
    np.testing.assert_allclose(choice_probabilities(logp, [0, 1, 1]), [[1 / 6, 5 / 6]])
    paper = choice_probabilities(logp, [0, 0, 1], normaliser="tallrec")
    np.testing.assert_allclose(paper, [[0.5, 0.5]])


def test_an_answer_that_no_probability_is_left_for_has_no_chance() -> None:
    np.testing.assert_allclose(choice_probabilities(np.array([[-2000.0, -1.0, -3000.0]]), [0, 1, 0]), [[0.0, 1.0]])


def test_answers_that_share_their_first_token_cannot_be_told_apart_by_it() -> None:
    assert first_tokens([[1, 2], [3]]) == [[1], [3]]
    with pytest.raises(ValueError, match=r"answers share theirs .* Use `rank.normaliser: ratio`"):
        first_tokens([[1, 2], [1, 3]])


def test_an_answer_that_begins_another_is_refused() -> None:
    with pytest.raises(ValueError, match="one is the beginning of another"):
        distinct_answers([[1], [1, 2]])


def test_answers_that_are_one_to_the_tokenizer_are_refused() -> None:
    with pytest.raises(ValueError, match="two of them are the same"):
        distinct_answers([[1, 2], [1, 2]])
