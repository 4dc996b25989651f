"""The engine against `generate` and against brute force: families, scores, limits, certificates, what it costs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rectune.decoding.beam import Limits
from rectune.decoding.engine import Engine
from rectune.decoding.reference import reference_search
from rectune.decoding.trie import Trie, build_trie
from tests.decoding.test_trie import catalogues

END, PAD, VOCABULARY = 2, 0, 120
SMALL = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
LLAMA = {**SMALL, "num_key_value_heads": 1, "head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "mistral": {**LLAMA, "sliding_window": 32},
    "gemma2": {**LLAMA, "sliding_window": 32, "final_logit_softcapping": 3.0},
    "gemma3_text": {**LLAMA, "sliding_window": 32},
    "cohere": {**LLAMA, "logit_scale": 0.3},
    "granite": {**LLAMA, "logits_scaling": 3.0},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gpt_neox": {**SMALL, "max_position_embeddings": 64},
    "opt": {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 8},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
}  # fmt: skip
FALLEN = {
    "bloom": ({"hidden_size": 16, "n_layer": 2, "n_head": 2}, "mask of its own for each beam"),
    "gpt_neo": (
        {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]], "window_size": 8},
        "masks of its own, by place in the cache",
    ),
    "mpt": ({"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 64}, "adds a bias by place in the cache"),
    "mamba": ({"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}, "layers that carry a state"),
}  # fmt: skip
IDS = [[10 + a, 20 + b, 30 + c] for a in range(4) for b in range(5) for c in range(3) if (7 * a + 3 * b + c) % 4]
TITLES = [
    [*name, END] for name in ([10], [10, 11], [10, 11, 12], [13, 11], [13, 14, 15, 16], [17], [17, 10, 11, 12, 13])
]
PROMPTS = [[40, 41, 42, 43, 44], [45], [46, 47, 48], [49, 40]]
HIDDEN = [[0, 1, 2], [3], [], [4, 5, 6]]


def build(family: str, *, seed: int = 1, **fields: Any) -> Any:
    """A tiny model whose logits differ enough between tokens to order a catalogue."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = AutoConfig.for_model(
        family, vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=1, eos_token_id=2, **fields
    )
    torch.manual_seed(seed)
    model = (AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM).from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, 0, 0.3)
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    return build("qwen3", **LLAMA)


@torch.no_grad()
def brute_force(model: Any, prompt: list[int], names: list[list[int]], trie: Trie, *, catalogue: bool) -> np.ndarray:
    """Log-probability of every name, one forward pass a name."""
    totals = []
    for name in names:
        logp = model(input_ids=torch.tensor([[*prompt, *name]])).logits[0].double().log_softmax(-1)
        total, node = 0.0, 0
        for step, token in enumerate(name):
            row, children = logp[len(prompt) - 1 + step], trie.children(node)
            total += float(row[token] - (row[list(children)].logsumexp(0) if catalogue else 0.0))
            node = children[token]
        totals.append(total)
    return np.array(totals)


def engine_of(model: Any, names: list[list[int]], scores: Any, **options: Any) -> Engine:
    end = END if names[0][-1] == END else None
    trie = build_trie(names, fixed_length=end is None)
    return Engine(model, trie, scores=scores, end=end, pad=PAD, **options)


def both(engine: Engine, model: Any, prompts: list[list[int]], beams: int, limits: Limits) -> tuple[Any, Any]:
    reference = reference_search(
        model, engine._trie, prompts, beams=beams, scores=engine._scores, end=engine._end, pad=PAD, limits=limits
    )
    return engine.search(prompts, beams=beams, limits=limits), reference


def assert_same(found: Any, reference: Any) -> None:
    assert found.items.tolist() == reference.items.tolist()
    listed = found.items >= 0
    np.testing.assert_allclose(found.scores[listed], reference.scores[listed], atol=1e-4)
    assert np.isneginf(found.scores[~listed]).all()


# ------------------------------------------------------------------------------------------------------------ families


@pytest.mark.parametrize("names", [IDS, TITLES], ids=["ids", "titles"])
@pytest.mark.parametrize("scores", ["full", "catalogue"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_lists_of_generate(family: str, scores: str, names: list[list[int]]) -> None:
    model = build(family, **FAMILIES[family])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no fallback
        engine = engine_of(model, names, scores)
        for beams in (3, 60):
            assert_same(*both(engine, model, PROMPTS, beams, Limits(hidden=HIDDEN)))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_kinds_of_attention_keep_beams_apart(attention: str) -> None:
    model = build("llama", **LLAMA)
    model.set_attn_implementation(attention)
    assert_same(*both(engine_of(model, IDS, "full"), model, PROMPTS, 6, Limits()))


@pytest.mark.parametrize("family", FALLEN)
def test_a_model_that_cannot_be_searched_falls_back_with_one_warning(family: str) -> None:
    fields, why = FALLEN[family]
    model = build(family, **fields)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine = engine_of(model, IDS, "full")
        for _ in range(2):
            assert_same(*both(engine, model, PROMPTS, 4, Limits(hidden=HIDDEN)))
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
    assert_same(*both(engine, model, [[40, 41, 42]], 4, Limits()))  # 3 + 3 tokens: the window sees them all
    with pytest.warns(UserWarning, match="looks back 6 tokens and the longest prompt with its answer has 8"):
        assert_same(*both(engine, model, PROMPTS, 4, Limits()))


def test_a_head_that_is_not_understood_falls_back(model: Any) -> None:
    odd = build("qwen3", **LLAMA)
    plain = odd.lm_head.forward
    odd.lm_head.forward = lambda hidden: plain(hidden).sin()  # what a new kind of model might do after its head
    with pytest.warns(UserWarning, match="falls back to `generate`.*are off by"):
        engine = engine_of(odd, IDS, "full")
    assert_same(*both(engine, odd, PROMPTS, 4, Limits()))


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
    model.lm_head.forward = lambda hidden: 1.1 * plain(hidden)
    with pytest.warns(UserWarning, match="are off by"):
        engine_of(model, IDS, "full")


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


# -------------------------------------------------------------------------------------------------------- brute force


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
    limits = Limits(hidden=hidden)
    engine = engine_of(model, names, scores)
    found, reference = both(engine, model, rows, beams, limits)
    assert_same(found, reference)
    exact = engine_of(model, names, scores, exact=True).search(rows, beams=beams, limits=limits)
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
        for limits in (Limits(hidden=[[item]]), Limits(only=[[i for i in range(len(names)) if i != item]])):
            found = engine.search([prompt], beams=3, limits=limits)
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
        found = engine_of(model, names, "full", exact=True).search(PROMPTS, beams=5, limits=Limits(hidden=HIDDEN))
        whole = engine_of(model, names, "full").search(PROMPTS, beams=len(names), limits=Limits(hidden=HIDDEN))
        assert found.exact.all()
        assert found.items.tolist() == whole.items[:, :5].tolist()


def test_one_beam_is_the_best_of_two_as_in_the_reference(model: Any) -> None:
    engine = engine_of(model, TITLES, "full")
    assert_same(*both(engine, model, PROMPTS, 1, Limits()))


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
    for limits, may in (
        (Limits(hidden=HIDDEN), [~np.isin(np.arange(len(IDS)), h) for h in HIDDEN]),
        (Limits(alive=engine._trie.living(allowed)), [allowed] * 4),
        (Limits(only=only), [np.isin(np.arange(len(IDS)), o) for o in only]),
        (
            Limits(engine._trie.living(allowed), HIDDEN, only),
            [allowed & ~np.isin(np.arange(len(IDS)), h) & np.isin(np.arange(len(IDS)), o) for h, o in zip(HIDDEN, only, strict=True)],
        ),
    ):  # fmt: skip
        for beams in (4, len(IDS)):
            found = engine.search(PROMPTS, beams=beams, limits=limits)
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


# ---------------------------------------------------------------------------------------------------------------- costs


def test_tokens_are_the_prompt_and_the_codes_of_beams(model: Any) -> None:
    names = [[10 + a, 30 + b, 50 + c] for a in range(8) for b in range(8) for c in range(2)]
    for scores in ("full", "catalogue"):
        engine = engine_of(model, names, scores)
        engine.search([PROMPTS[0]], beams=6)
        counts = engine.counts
        assert (counts.prompt, counts.codes, counts.padding, counts.passes) == (5, 2 * 6, 0, 3)


def test_forced_codes_cost_nothing_in_catalogue_scores(model: Any) -> None:
    names = [[10 + a, 30, 50 + a] for a in range(8)]  # the first code says it all
    costs = {}
    for scores in ("full", "catalogue"):
        engine = engine_of(model, names, scores)
        engine.search([PROMPTS[0]], beams=4)
        costs[scores] = engine.counts.codes
    assert costs == {"full": 2 * 4, "catalogue": 0}


@pytest.mark.parametrize("scores", ["full", "catalogue"])
def test_waits_for_the_device_are_per_step_not_per_beam_or_row(
    model: Any, scores: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(model, IDS, scores)
    waits = [0]
    for name in ("tolist", "item", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__"):
        plain = getattr(torch.Tensor, name)

        def counted(*args: Any, plain: Any = plain, **kwargs: Any) -> Any:
            waits[0] += 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    seen = set()
    for rows, beams in ((1, 2), (1, 20), (4, 2), (4, 20)):
        waits[0] = 0
        engine.search([[40, 41, 42]] * rows, beams=beams)
        seen.add(waits[0])
    assert len(seen) == 1
    assert seen.pop() <= 2 * engine._trie.depth + 8


# ------------------------------------------------------------------------------------------------------------- a prior


@settings(deadline=None)
@given(names=catalogues(), seed=st.integers(0, 1000), scores=st.sampled_from(["full", "catalogue"]))
def test_with_a_prior_a_score_is_the_models_and_the_priors_log_probability(names: Any, seed: int, scores: Any) -> None:
    trie = build_trie(names, fixed_length=False)
    prior = np.random.default_rng(seed).normal(0, 3, (len(PROMPTS), len(names))).astype(np.float32)
    engine = Engine(build("llama", **LLAMA), trie, scores=scores, end=END, pad=PAD)
    alone = engine.search(PROMPTS, beams=max(2, len(names)))
    mixed = engine.search(PROMPTS, beams=max(2, len(names)), limits=Limits(prior=prior))
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
        PROMPTS, beams=len(IDS), limits=Limits(hidden=HIDDEN, prior=prior)
    )
    shown = Engine(model, trie, scores="full", end=None, pad=PAD).search(
        PROMPTS, beams=len(IDS), limits=Limits(prior=prior)
    )
    short = Engine(model, trie, scores="full", end=None, pad=PAD, exact=True).search(
        PROMPTS, beams=3, limits=Limits(hidden=HIDDEN, prior=prior)
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
            engine.search(PROMPTS, beams=3, limits=Limits(prior=np.zeros((len(PROMPTS), len(IDS)), dtype=np.float32)))
