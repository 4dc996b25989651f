"""Constrained beam search against brute force over the whole catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rectune.decoding.beam import beam_search
from rectune.decoding.trie import Trie, build_trie

END, PAD = 2, 0
NAMES_FIXED = [[a, 20 + b, 40 + c] for a in (10, 11, 12) for b in range(3) for c in range(2)]
NAMES_TITLES = [[*name, END] for name in ([10], [10, 11], [10, 11, 12], [13, 11], [13, 14, 15, 16], [17])]
PROMPTS = [[1, 30, 31, 32, 33], [1], [1, 50, 51], [1, 34]]


@pytest.fixture(scope="module")
def model(checkpoints: dict[str, Path]) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoints["untied"]).eval()


@torch.no_grad()
def brute_force(model: Any, prompt: list[int], names: list[list[int]], trie: Trie, *, catalogue: bool) -> np.ndarray:
    """Log-probability of every name, one forward pass a name."""
    totals = []
    for name in names:
        logp = model(input_ids=torch.tensor([[*prompt, *name]])).logits[0].double().log_softmax(-1)
        total, node = 0.0, 0
        for step, token in enumerate(name):
            row = logp[len(prompt) - 1 + step]
            total += float(row[token] - (row[list(trie.children[node])].logsumexp(0) if catalogue else 0.0))
            node = trie.children[node][token]
        totals.append(total)
    return np.array(totals)


@pytest.mark.parametrize("scores", ["full", "catalogue"])
@pytest.mark.parametrize(("names", "end"), [(NAMES_FIXED, None), (NAMES_TITLES, END)])
def test_a_wide_beam_equals_brute_force(model: Any, scores: str, names: list[list[int]], end: int | None) -> None:
    trie = build_trie(names, fixed_length=end is None)
    items, found = beam_search(model, trie, PROMPTS, beams=len(names), scores=scores, end=end, pad=PAD)  # type: ignore[arg-type]
    for i, prompt in enumerate(PROMPTS):
        truth = brute_force(model, prompt, names, trie, catalogue=scores == "catalogue")
        assert items[i].tolist() == np.argsort(-truth, kind="stable").tolist()
        np.testing.assert_allclose(found[i], np.sort(truth)[::-1], atol=2e-5)
        if scores == "catalogue":
            assert np.exp(found[i].astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-5)


def test_lists_hold_distinct_real_items_or_say_that_they_are_short(model: Any) -> None:
    trie = build_trie(NAMES_FIXED, fixed_length=True)
    items, scores = beam_search(model, trie, PROMPTS, beams=30, scores="full", end=None, pad=PAD)
    for row, score in zip(items, scores, strict=True):
        assert sorted(row[:18]) == list(range(18))
        assert (row[18:] == -1).all()
        assert np.isneginf(score[18:]).all()


@pytest.mark.parametrize("scores", ["full", "catalogue"])
def test_hidden_items_are_left_out_inside_the_search(model: Any, scores: str) -> None:
    trie = build_trie(NAMES_FIXED, fixed_length=True)
    hidden = [[0, 1, 2, 3, 4, 5], [17], [], list(range(18))]
    whole, whole_scores = beam_search(model, trie, PROMPTS, beams=18, scores=scores, end=None, pad=PAD)  # type: ignore[arg-type]
    items, found = beam_search(model, trie, PROMPTS, beams=18, scores=scores, end=None, pad=PAD, hidden=hidden)  # type: ignore[arg-type]
    for i, gone in enumerate(hidden):
        kept = ~np.isin(whole[i], gone)
        assert items[i][items[i] >= 0].tolist() == whole[i][kept].tolist()
        np.testing.assert_allclose(found[i][items[i] >= 0], whole_scores[i][kept], atol=1e-6)


def test_settings_inherited_from_a_checkpoint_change_nothing(model: Any) -> None:
    trie = build_trie(NAMES_TITLES, fixed_length=False)
    clean = beam_search(model, trie, PROMPTS, beams=4, scores="full", end=END, pad=PAD)
    before = model.generation_config
    poison = type(before)(
        do_sample=True, top_k=1, top_p=0.1, temperature=9.0, repetition_penalty=3.0, length_penalty=5.0, num_beams=1,
        no_repeat_ngram_size=1, min_new_tokens=7, bad_words_ids=[[10]], suppress_tokens=[13], forced_eos_token_id=10,
        exponential_decay_length_penalty=(1, 5.0), max_new_tokens=1, early_stopping=True, eos_token_id=10, min_p=0.9,
        typical_p=0.2, epsilon_cutoff=0.3, eta_cutoff=0.3, encoder_repetition_penalty=2.0, begin_suppress_tokens=[10],
        sequence_bias=[[[13], -10.0]], renormalize_logits=True, forced_bos_token_id=17,
    )  # fmt: skip
    try:
        model.generation_config = poison
        poisoned = beam_search(model, trie, PROMPTS, beams=4, scores="full", end=END, pad=PAD)
        assert model.generation_config is poison
    finally:
        model.generation_config = before
    assert np.array_equal(clean[0], poisoned[0])
    assert np.array_equal(clean[1], poisoned[1])


def test_lists_do_not_depend_on_the_batch(model: Any) -> None:
    trie = build_trie(NAMES_FIXED, fixed_length=True)
    together, _ = beam_search(model, trie, PROMPTS, beams=6, scores="full", end=None, pad=PAD)
    for i, prompt in enumerate(PROMPTS):
        alone, _ = beam_search(model, trie, [prompt], beams=6, scores="full", end=None, pad=PAD)
        assert alone[0].tolist() == together[i].tolist()


def test_the_prompt_is_computed_once_a_row(model: Any) -> None:
    trie = build_trie(NAMES_FIXED, fixed_length=True)
    shapes = []
    hook = model.model.register_forward_hook(
        lambda m, a, k, o: shapes.append(tuple(k["input_ids"].shape)), with_kwargs=True
    )
    try:
        beam_search(model, trie, PROMPTS, beams=6, scores="full", end=None, pad=PAD)
    finally:
        hook.remove()
    assert shapes == [(4, 4), (24, 1), (24, 1), (24, 1)]


def test_one_beam_is_the_best_of_two(model: Any) -> None:
    trie = build_trie(NAMES_FIXED, fixed_length=True)
    one, score = beam_search(model, trie, PROMPTS, beams=1, scores="full", end=None, pad=PAD)
    two, scores = beam_search(model, trie, PROMPTS, beams=2, scores="full", end=None, pad=PAD)
    assert one.shape == (4, 1)
    assert np.array_equal(one, two[:, :1])
    assert np.array_equal(score, scores[:, :1])
