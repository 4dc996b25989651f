"""A prior beside the model, inside the search."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectune.decoding.engine import Engine
from rectune.decoding.shelf import Shelf
from rectune.decoding.trie import build_trie
from tests.decoding.models import (
    END,
    FALLEN,
    HIDDEN,
    IDS,
    LLAMA,
    PAD,
    PROMPTS,
    build,
)
from tests.decoding.test_trie import catalogues


@settings(deadline=None)
@given(names=catalogues(), seed=st.integers(0, 1000), scores=st.sampled_from(["full", "catalogue"]))
def test_with_a_prior_a_score_is_the_models_and_the_priors_log_probability(names: Any, seed: int, scores: Any) -> None:
    trie = build_trie(names, fixed_length=False)
    prior = np.random.default_rng(seed).normal(0, 3, (len(PROMPTS), len(names))).astype(np.float32)
    engine = Engine(build("llama", **LLAMA), trie, scores=scores, end=END, pad=PAD)
    alone = engine.search(PROMPTS, beams=max(2, len(names)))
    mixed = engine.search(PROMPTS, beams=max(2, len(names)), shelf=Shelf(prior=prior.__getitem__))
    log_prior = prior - np.log(np.exp(prior).sum(1, keepdims=True))
    for row in range(len(PROMPTS)):
        expected = {
            int(i): s + log_prior[row, i] for i, s in zip(alone.items[row], alone.scores[row], strict=True) if i >= 0
        }
        found = {int(i): s for i, s in zip(mixed.items[row], mixed.scores[row], strict=True) if i >= 0}
        assert found == pytest.approx(expected, abs=1e-3)
        assert list(found) == sorted(found, key=lambda item: -found[item])


def test_exact_lists_with_a_prior_are_the_best_of_the_mix_and_hidden_items_change_no_other_score() -> None:
    trie = build_trie(IDS, fixed_length=True)
    prior = np.random.default_rng(0).normal(0, 4, (len(PROMPTS), len(IDS))).astype(np.float32)
    model = build("llama", **LLAMA)
    every = Engine(model, trie, scores="full", end=None, pad=PAD).search(
        PROMPTS, beams=len(IDS), shelf=Shelf(hidden=HIDDEN, prior=prior.__getitem__)
    )
    shown = Engine(model, trie, scores="full", end=None, pad=PAD).search(
        PROMPTS, beams=len(IDS), shelf=Shelf(prior=prior.__getitem__)
    )
    short = Engine(model, trie, scores="full", end=None, pad=PAD, exact=True).search(
        PROMPTS, beams=3, shelf=Shelf(hidden=HIDDEN, prior=prior.__getitem__)
    )
    assert short.exact.all()
    assert np.array_equal(short.items, every.items[:, :3])
    for row, hidden in enumerate(HIDDEN):
        left = [(int(i), s) for i, s in zip(shown.items[row], shown.scores[row], strict=True) if i not in hidden]
        assert [i for i, _ in left] == [int(i) for i in every.items[row] if i >= 0]
        assert np.allclose([s for _, s in left], every.scores[row][: len(left)], atol=1e-4)


def test_a_model_that_generate_ranks_takes_no_prior() -> None:
    fields, _ = FALLEN["bloom"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = Engine(build("bloom", **fields), build_trie(IDS, fixed_length=True), scores="full", end=None, pad=PAD)
        with pytest.raises(ValueError, match="takes no prior"):
            engine.search(
                PROMPTS, beams=3, shelf=Shelf(prior=lambda which: np.zeros((len(which), len(IDS)), dtype=np.float32))
            )
