"""The engine against `generate` and against brute force: scores, limits, certificates."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rectune.decoding.engine import Engine
from rectune.decoding.reference import reference_search
from rectune.decoding.shelf import Shelf
from rectune.decoding.trie import build_trie
from tests.decoding.models import (
    END,
    FAMILIES,
    HIDDEN,
    IDS,
    LLAMA,
    PAD,
    PROMPTS,
    TITLES,
    assert_same,
    both,
    brute_force,
    build,
    engine_of,
)
from tests.decoding.test_trie import catalogues


@pytest.mark.parametrize("scores", ["full", "catalogue"])
@pytest.mark.parametrize("names", [IDS, TITLES], ids=["ids", "titles"])
def test_a_wide_beam_is_brute_force(model: Any, scores: str, names: list[list[int]]) -> None:
    engine = engine_of(model, names, scores)
    found = engine.search(PROMPTS, beams=len(names))
    assert found.exact.all()
    for i, prompt in enumerate(PROMPTS):
        truth = brute_force(model, prompt, names, engine._trie, catalogue=scores == "catalogue")
        assert found.items[i].tolist() == np.argsort(-truth, kind="stable").tolist()
        np.testing.assert_allclose(found.scores[i], np.sort(truth)[::-1], atol=2e-5)
        if scores == "catalogue":
            assert np.exp(found.scores[i].astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=25)
@given(catalogues(), st.integers(0, 10**6), st.integers(2, 12), st.sampled_from(["full", "catalogue"]), st.data())
def test_random_catalogues(names: list[list[int]], seed: int, beams: int, scores: Any, data: st.DataObject) -> None:
    """Engine = reference for any beam; exact = brute force; a certificate is never wrong; limits hold."""
    names = [[n if n != 99 else END for n in (10 + t if t != 99 else END for t in name)] for name in names]
    model = build("qwen3", seed=seed, **LLAMA)
    rows = [data.draw(st.lists(st.integers(60, 90), min_size=1, max_size=6)) for _ in range(2)]
    hidden = [data.draw(st.lists(st.integers(0, len(names) - 1), max_size=4)) for _ in rows]
    shelf = Shelf(hidden=hidden)
    engine = engine_of(model, names, scores)
    found, reference = both(engine, model, rows, beams, shelf)
    assert_same(found, reference)
    exact = engine_of(model, names, scores, exact=True).search(rows, beams=beams, shelf=shelf)
    assert exact.exact.all()
    for i, prompt in enumerate(rows):
        truth = brute_force(model, prompt, names, engine._trie, catalogue=scores == "catalogue")
        truth[hidden[i]] = -np.inf
        best = np.sort(truth)[::-1][:beams]
        best = best[best > -np.inf]
        listed = exact.items[i][exact.items[i] >= 0]
        np.testing.assert_allclose(truth[listed], best, atol=1e-4)
        assert len(set(listed.tolist())) == len(best)
        if found.exact[i]:
            np.testing.assert_allclose(found.scores[i][: len(best)], best, atol=1e-4)


SPILLING = [
    ("full", [[10], [11], [10, 20], [10, 20, 30, 40], [10, 20, 30, 41], *([11, 21, 31, 40 + i] for i in range(4))], [98, 60, 77]),
    ("catalogue", [[11], [10], [11, 20], [11, 20, 30, 40], *([10, 21, 31, 40 + i] for i in range(4))], [70, 61, 85]),
]  # fmt: skip


@pytest.mark.parametrize(("scores", "names", "prompt"), SPILLING, ids=["full", "catalogue"])
@pytest.mark.parametrize("exact", [False, True])
def test_what_is_hidden_below_a_beam_that_was_given_up_hides_nothing_else(
    model: Any, scores: str, names: list[list[int]], prompt: list[int], exact: bool
) -> None:
    names = [[*name, END] for name in names]
    engine = engine_of(model, names, scores, exact=exact)
    truth = brute_force(model, prompt, names, engine._trie, catalogue=scores == "catalogue")
    for item in range(len(names)):
        for shelf in (Shelf(hidden=[[item]]), Shelf(only=[[i for i in range(len(names)) if i != item]])):
            found = engine.search([prompt], beams=3, shelf=shelf)
            best = [i for i in np.argsort(-truth, kind="stable").tolist() if i != item][:3]
            if found.exact[0]:
                assert found.items[0].tolist() == best
            assert item not in found.items[0]
            assert (found.items[0] >= 0).all()


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_long_names_are_searched_exactly(family: str) -> None:
    rng = np.random.default_rng(0)
    drawn = {tuple(int(10 * (i + 1) + c) for i, c in enumerate(rng.integers(0, 3, 6))) for _ in range(120)}
    names = [list(name) for name in sorted(drawn)]
    for seed in range(4):
        model = build(family, seed=seed, **FAMILIES[family])
        found = engine_of(model, names, "full", exact=True).search(PROMPTS, beams=5, shelf=Shelf(hidden=HIDDEN))
        whole = engine_of(model, names, "full").search(PROMPTS, beams=len(names), shelf=Shelf(hidden=HIDDEN))
        assert found.exact.all()
        assert found.items.tolist() == whole.items[:, :5].tolist()


def test_one_beam_is_the_best_of_two_as_in_the_reference(model: Any) -> None:
    engine = engine_of(model, TITLES, "full")
    assert_same(*both(engine, model, PROMPTS, 1, Shelf()))


def test_scores_that_are_no_numbers_are_an_error() -> None:
    broken = build("qwen3", **LLAMA)
    with torch.no_grad():
        broken.lm_head.weight[10] = torch.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the check of the model at hand finds it as well
        engine = engine_of(broken, IDS, "full")
    with pytest.raises(ValueError, match=r"not numbers \(NaN\)"):
        engine.search(PROMPTS, beams=3)


def test_a_node_budget_leaves_lists_uncertified_not_wrong(model: Any) -> None:
    names = [[10 + a, 30 + b, 60 + c] for a in range(12) for b in range(12) for c in range(2)]
    trie = build_trie(names, fixed_length=True)
    few = Engine(model, trie, scores="full", end=None, pad=PAD, exact=True, exact_nodes=1).search(PROMPTS, beams=2)
    many = Engine(model, trie, scores="full", end=None, pad=PAD, exact=True, exact_nodes=10**6).search(PROMPTS, beams=2)
    assert many.exact.all()
    assert not few.exact.all()
    for i in np.flatnonzero(few.exact):
        assert few.items[i].tolist() == many.items[i].tolist()
    assert (few.scores <= many.scores + 1e-6).all()


# ------------------------------------------------------------------------------------------------------------- contract


@pytest.mark.parametrize("scores", ["full", "catalogue"])
@pytest.mark.parametrize("exact", [False, True])
def test_limits_hold_inside_the_search_and_change_no_score(model: Any, scores: Any, exact: bool) -> None:
    engine = engine_of(model, IDS, scores, exact=exact)
    whole = engine.search(PROMPTS, beams=len(IDS))
    allowed = np.arange(len(IDS)) % 3 != 0
    only = [[1, 2, 4], [5], [7, 8, 10, 11], list(range(20))]
    for shelf, may in (
        (Shelf(hidden=HIDDEN), [~np.isin(np.arange(len(IDS)), h) for h in HIDDEN]),
        (Shelf(allowed), [allowed] * 4),
        (Shelf(only=only), [np.isin(np.arange(len(IDS)), o) for o in only]),
        (
            Shelf(allowed, HIDDEN, only),
            [allowed & ~np.isin(np.arange(len(IDS)), h) & np.isin(np.arange(len(IDS)), o) for h, o in zip(HIDDEN, only, strict=True)],
        ),
    ):  # fmt: skip
        for beams in (4, len(IDS)):
            found = engine.search(PROMPTS, beams=beams, shelf=shelf)
            for i in range(4):
                kept = may[i][whole.items[i]]
                listed = found.items[i] >= 0
                if exact or beams == len(IDS):
                    assert found.items[i][listed].tolist() == whole.items[i][kept][:beams].tolist()
                    np.testing.assert_allclose(found.scores[i][listed], whole.scores[i][kept][:beams], atol=1e-5)
                assert may[i][found.items[i][listed]].all()
                assert listed.sum() == min(beams, may[i].sum())


def test_ties_go_to_the_smaller_leaf() -> None:
    model = build("gpt2", **FAMILIES["gpt2"])
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()  # every token is as likely as any other
    names = [[10 + i // 16, 30 + i % 16] for i in range(64)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = engine_of(model, names, "full").search(PROMPTS, beams=20)
    assert found.items.tolist() == [list(range(20))] * 4
    assert found.exact.all()


def test_one_item_is_a_list(model: Any) -> None:
    found = engine_of(model, [[10, 11]], "catalogue").search(PROMPTS, beams=3)
    assert found.items.tolist() == [[0, -1, -1]] * 4
    assert found.scores[:, 0].tolist() == [0.0] * 4


def test_lists_do_not_depend_on_the_batch_or_on_a_shared_prefix(model: Any) -> None:
    start = [50, 51, 52, 53, 54, 55, 56, 57, 58]
    prompts = [start + p for p in PROMPTS]
    engine = engine_of(model, IDS, "full")
    together = engine.search(prompts, beams=6)
    before = engine.counts.prompt
    prefix = engine.prefix(prompts)
    assert prefix is not None
    assert prefix.tokens == start
    shared = engine.search(prompts, beams=6, prefix=prefix)
    assert engine.counts.prompt - before == len(start) + sum(map(len, PROMPTS))
    assert_same(shared, together)
    for i, prompt in enumerate(prompts):
        alone = engine.search([prompt], beams=6)
        assert alone.items[0].tolist() == together.items[i].tolist()


def test_settings_inherited_from_a_checkpoint_change_nothing(model: Any) -> None:
    trie = build_trie(TITLES, fixed_length=False)

    def ranked() -> list[Any]:
        reference = reference_search(model, trie, PROMPTS, beams=4, scores="full", end=END, pad=PAD)
        return [engine_of(model, TITLES, "full").search(PROMPTS, beams=4), reference]

    clean = ranked()
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
        poisoned = ranked()
        assert model.generation_config is poison
    finally:
        model.generation_config = before
    for one, other in zip(clean, poisoned, strict=True):
        assert np.array_equal(one.items, other.items)
        assert np.array_equal(one.scores, other.scores)
