"""The engine on every family of models: the lists of `generate`, or one warning and `generate` itself."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from rectune.decoding.body import take_apart
from rectune.decoding.conformance import _differences
from rectune.decoding.reference import reference_search
from rectune.decoding.shelf import Shelf
from rectune.decoding.trie import build_trie
from rectune.model.float32 import InFloat32
from tests.decoding.models import (
    FALLEN,
    FAMILIES,
    HIDDEN,
    IDS,
    LLAMA,
    PAD,
    PROMPTS,
    TITLES,
    assert_same,
    both,
    build,
    engine_of,
)


@pytest.mark.parametrize("names", [IDS, TITLES], ids=["ids", "titles"])
@pytest.mark.parametrize("scores", ["full", "catalogue"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_lists_of_generate(family: str, scores: str, names: list[list[int]]) -> None:
    model = build(family, **FAMILIES[family])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no fallback
        engine = engine_of(model, names, scores)
        for beams in (3, 60):
            assert_same(*both(engine, model, PROMPTS, beams, Shelf(hidden=HIDDEN)))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_kinds_of_attention_keep_beams_apart(attention: str) -> None:
    model = build("llama", **LLAMA)
    model.set_attn_implementation(attention)
    assert_same(*both(engine_of(model, IDS, "full"), model, PROMPTS, 6, Shelf()))


@pytest.mark.parametrize("family", FALLEN)
def test_a_model_that_cannot_be_searched_falls_back_with_one_warning(family: str) -> None:
    fields, why = FALLEN[family]
    model = build(family, **fields)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine = engine_of(model, IDS, "full")
        for _ in range(2):
            assert_same(*both(engine, model, PROMPTS, 4, Shelf(hidden=HIDDEN)))
    (told,) = [str(w.message) for w in caught if "falls back" in str(w.message)]
    assert why in told
    with pytest.raises(ValueError, match=r"`rank.exact`: this model cannot be searched exactly"):
        engine_of(model, IDS, "full", exact=True)


def test_flash_attention_is_refused_before_it_can_ignore_a_mask(model: Any) -> None:
    before = model.config._attn_implementation
    try:
        for name in ("flash_attention_2", "flex_attention"):
            model.config._attn_implementation = name
            with pytest.warns(UserWarning, match=f"`{name}` attention takes no mask"):
                engine_of(model, IDS, "full")
    finally:
        model.config._attn_implementation = before


def test_a_window_shorter_than_the_sequence_falls_back() -> None:
    model = build("mistral", **{**LLAMA, "sliding_window": 6})
    engine = engine_of(model, IDS, "full")
    assert_same(*both(engine, model, [[40, 41, 42]], 4, Shelf()))  # 3 + 3 tokens: the window sees them all
    with pytest.warns(UserWarning, match="looks back 6 tokens and the longest prompt with its answer has 8"):
        assert_same(*both(engine, model, PROMPTS, 4, Shelf()))


def test_a_head_that_is_not_understood_falls_back(model: Any) -> None:
    odd = build("qwen3", **LLAMA)
    plain = odd.lm_head.forward
    odd.lm_head.forward = lambda hidden: plain(hidden).sin()  # what a new kind of model might do after its head
    with pytest.warns(UserWarning, match="falls back to `generate`.*are off by"):
        engine = engine_of(odd, IDS, "full")
    assert_same(*both(engine, odd, PROMPTS, 4, Shelf()))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_half_precision_is_searched_and_a_wrong_head_is_still_found_out(seed: int) -> None:
    model = build("qwen3", seed=seed, **LLAMA).to(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = engine_of(model, IDS, "full").search(PROMPTS, beams=10)
    reference = reference_search(
        model, build_trie(IDS, fixed_length=True), PROMPTS, beams=10, scores="full", end=None, pad=PAD
    )
    both = [len(set(a) & set(b)) for a, b in zip(found.items.tolist(), reference.items.tolist(), strict=True)]
    assert np.mean(both) >= 9
    plain = model.lm_head.forward
    model.lm_head.forward = lambda hidden: 1.03 * plain(hidden)  # within what half precision rounds away
    with pytest.warns(UserWarning, match="are off by"):
        engine_of(model, IDS, "full")


def test_a_model_whose_rounding_is_as_large_as_a_fault_is_searched() -> None:
    model = build("qwen3", **{**LLAMA, "num_hidden_layers": 16})
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.mul_(4)  # sharp attention, in which a rounded key can win or lose
        model = model.to(torch.bfloat16)
        wrong, _, allowed = _differences(model, take_apart(model), tokens=np.array(IDS).ravel(), pad=PAD)
    assert wrong > allowed, "this model rounds too little to show anything"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine_of(model, IDS, "full")


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_is_checked_in_float32_with_the_weights_as_they_are(family: str) -> None:
    model = build(family, **FAMILIES[family]).to(torch.bfloat16)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    body, tokens = take_apart(model), np.array(IDS).ravel()
    with torch.no_grad(), InFloat32():
        wrong, effect, _ = _differences(model, body, tokens=tokens, pad=PAD)
    assert wrong < 1e-4 * effect
    assert model.dtype == torch.bfloat16
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("family", FALLEN)
def test_half_precision_excuses_no_model_that_cannot_be_searched(family: str) -> None:
    model = build(family, **FALLEN[family][0]).to(torch.bfloat16)
    with pytest.warns(UserWarning, match="falls back to `generate`"):
        engine_of(model, IDS, "full").search(PROMPTS, beams=4)


def test_an_adapter_is_searched_in_place_and_after_folding() -> None:
    from peft import LoraConfig, get_peft_model

    base = build("qwen3", **LLAMA, tie_word_embeddings=True)
    config = LoraConfig(
        r=4, target_modules="all-linear", trainable_token_indices=list(range(10, 40)), init_lora_weights=False
    )
    adapted = get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "trainable_tokens_delta" in name:
                weight.add_(torch.randn_like(weight))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_place = engine_of(adapted, IDS, "full").search(PROMPTS, beams=5)
        assert_same(in_place, reference_search(adapted, build_trie(IDS, fixed_length=True), PROMPTS, beams=5, scores="full", end=None, pad=PAD))  # fmt: skip
        assert_same(engine_of(adapted.merge_and_unload(), IDS, "full").search(PROMPTS, beams=5), in_place)
