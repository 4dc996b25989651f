"""Fixed answers: probabilities by hand, one or several tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rectune.decoding.answers import answer_log_probabilities, choice_probabilities, distinct_answers

PROMPTS = [[1, 30, 31, 32], [1, 40]]


@pytest.fixture(scope="module")
def model(checkpoints: dict[str, Path]) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoints["tied"]).eval()


@torch.no_grad()
def by_hand(model: Any, prompt: list[int], answer: list[int]) -> float:
    logp = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double().log_softmax(-1)
    return sum(float(logp[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))


@pytest.mark.parametrize("answers", [[[10], [11]], [[10], [11, 12]], [[10, 13], [10, 14, 15]]])
def test_probabilities_of_answers_equal_a_plain_forward_pass(model: Any, answers: list[list[int]]) -> None:
    found = answer_log_probabilities(model, PROMPTS, answers, pad=0)
    truth = [[by_hand(model, p, a) for a in answers] for p in PROMPTS]
    np.testing.assert_allclose(found, truth, atol=1e-5)


def test_single_tokens_take_one_forward_pass(model: Any) -> None:
    calls = []
    hook = model.model.register_forward_hook(lambda *_: calls.append(1))
    try:
        answer_log_probabilities(model, PROMPTS, [[10], [11]], pad=0)
    finally:
        hook.remove()
    assert len(calls) == 1


def test_chances_are_the_ratio_of_the_two() -> None:
    logp = np.log(np.array([[0.02, 0.001], [0.5, 0.4]]))
    np.testing.assert_allclose(choice_probabilities(logp)[:, 0], [0.02 / 0.021, 0.5 / 0.9])


def test_answers_that_are_one_to_the_tokenizer_are_refused() -> None:
    with pytest.raises(ValueError, match="two of them are the same"):
        distinct_answers([[1, 2], [1, 2]])
