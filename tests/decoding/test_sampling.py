"""Draws from a model's distribution over the catalogue, beside what can be worked out by hand."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from rectune.decoding.noise import gumbel, uniform
from rectune.decoding.rollouts import Rollouts
from rectune.decoding.trie import build_trie
from tests.methods.test_preference import small_model

# Names of two and three tokens, one of a single token, a node with one child.
NAMES = [[50, 51], [50, 52], [51, 50, 53], [51, 50, 54], [52], [53, 50], [53, 51], [53, 55]]
PROMPTS = [[5, 6, 7], [8]]
MANY = 6000


@pytest.fixture(scope="module")
def model() -> Any:
    return small_model("lora").eval()


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    return Rollouts(build_trie(NAMES, fixed_length=False), pad=0, scores="catalogue", batch_tokens=200_000)


def by_hand(model: Any, prompt: list[int], temperature: float = 1.0) -> np.ndarray[Any, Any]:
    """Log-probability of each item: at every place over the tokens that some name has there."""
    out = []
    for name in NAMES:
        total = 0.0
        for place, token in enumerate(name):
            follow = sorted({other[place] for other in NAMES if other[:place] == name[:place]})
            logits = model(input_ids=torch.tensor([prompt + name[:place]])).logits[0, -1] / temperature
            total += float(logits[follow].log_softmax(-1)[follow.index(token)].detach())
        out.append(total)
    return np.array(out)


def test_a_trie_gives_back_the_names_it_was_made_of(rollouts: Rollouts) -> None:
    assert [rollouts.name(item) for item in range(len(NAMES))] == NAMES
    assert rollouts.beginning(2, 1).tolist() == [2, 3]
    assert rollouts.beginning(5, 1).tolist() == [5, 6, 7]


@pytest.mark.parametrize("how", ["beams", "independent", "without_replacement"])
def test_log_probabilities_are_those_of_the_model(model: Any, rollouts: Rollouts, how: Any) -> None:
    for temperature in (1.0,) if how == "beams" else (1.0, 0.5):
        found = rollouts.draw(model, PROMPTS, how=how, each=5, seeds=[1, 1], temperature=temperature)
        for row, prompt in enumerate(PROMPTS):
            own = by_hand(model, prompt, temperature)
            np.testing.assert_allclose(found.log_probs[row], own[found.items[row]], atol=1e-5)
            assert np.exp(own).sum() == pytest.approx(1)


def test_independent_draws_come_as_often_as_they_are_likely(model: Any, rollouts: Rollouts) -> None:
    found = rollouts.draw(model, PROMPTS * MANY, how="independent", each=4, seeds=range(2 * MANY))
    for row, prompt in enumerate(PROMPTS):
        p = np.exp(by_hand(model, prompt))
        items = found.items[row::2]
        np.testing.assert_allclose(
            np.bincount(items.ravel(), minlength=8) / items.size, p, atol=5 * (0.25 / items.size) ** 0.5
        )
        twice = (items[:, 0] == items[:, 1]).mean()  # the draws of a group don't know of each other
        assert twice == pytest.approx((p**2).sum(), abs=5 * (0.25 / MANY) ** 0.5)


def test_draws_without_replacement_come_in_the_order_of_single_draws(model: Any, rollouts: Rollouts) -> None:
    found = rollouts.draw(model, PROMPTS * MANY, how="without_replacement", each=3, seeds=range(2 * MANY))
    slack = 5 * (0.25 / MANY) ** 0.5
    for row, prompt in enumerate(PROMPTS):
        p, items = np.exp(by_hand(model, prompt)), found.items[row::2]
        assert all(len(set(group)) == 3 for group in items.tolist())
        taken, second = np.zeros(8), np.zeros(8)
        for a, b, c in permutations(range(8), 3):
            chance = p[a] * p[b] / (1 - p[a]) * p[c] / (1 - p[a] - p[b])
            taken[[a, b, c]] += chance
            second[b] += chance
        np.testing.assert_allclose(np.bincount(items[:, 0], minlength=8) / MANY, p, atol=slack)
        np.testing.assert_allclose(np.bincount(items[:, 1], minlength=8) / MANY, second, atol=slack)
        np.testing.assert_allclose(np.bincount(items.ravel(), minlength=8) / MANY, taken, atol=slack)
        # p / (chance to be drawn, given the others) makes any mean over the catalogue right on average (Kool et al., section 4.2)
        weight = np.exp(found.log_probs[row::2] - found.within[row::2])
        for value in (np.arange(8.0), np.eye(8)[4]):
            means = (weight * value[items]).sum(1)
            assert means.mean() == pytest.approx((p * value).sum(), abs=5 * means.std() / MANY**0.5)


def test_what_is_asked_for_alone_is_drawn_alone(model: Any, rollouts: Rollouts) -> None:
    only = [[2, 3], [5, 6, 7]]  # all below one code
    for how in ("independent", "without_replacement"):
        found = rollouts.draw(model, PROMPTS, how=how, each=3, seeds=[4, 4], only=only)  # type: ignore[arg-type]
        for row, prompt in enumerate(PROMPTS):
            own = by_hand(model, prompt)
            there = found.items[row] >= 0
            assert set(found.items[row][there].tolist()) <= set(only[row])
            expected = own - np.log(np.exp(own[only[row]]).sum())
            np.testing.assert_allclose(found.log_probs[row][there], expected[found.items[row][there]], atol=1e-5)
        if how == "without_replacement":  # two items are all there are of the first row: both are drawn for sure
            assert (found.items[0] >= 0).tolist() == [True, True, False]
            np.testing.assert_array_equal(found.within[0][:2], 0)
            assert sorted(found.items[1].tolist()) == only[1]


@pytest.mark.parametrize("how", ["independent", "without_replacement"])
def test_what_a_prompt_draws_depends_on_its_seed_and_on_nothing_beside_it(
    model: Any, rollouts: Rollouts, how: Any
) -> None:
    def drawn(prompts: list[list[int]], seeds: Any, tokens: int = 10**6) -> Any:
        made = Rollouts(rollouts.trie, pad=0, scores="catalogue", batch_tokens=tokens)
        return made.draw(model, prompts, how=how, each=4, seeds=seeds).items

    many = drawn(PROMPTS * 20, range(40))
    assert np.array_equal(drawn(PROMPTS * 20, range(40), tokens=20), many)  # a prompt or two at a time
    assert np.array_equal(drawn((PROMPTS * 20)[::-1], range(40)[::-1]), many[::-1])
    assert np.array_equal(drawn(PROMPTS[:1], [38]), many[38:39])
    assert not np.array_equal(drawn(PROMPTS * 20, range(40, 80)), many)
    assert len(np.unique(many[::2], axis=0)) > 10


def test_noise_is_uniform_and_that_of_its_row_and_place() -> None:
    rows, places = torch.arange(200), torch.arange(500).repeat(200, 1)
    found = uniform(rows, places).numpy()
    assert kstest(found.ravel(), "uniform").pvalue > 0.001
    assert 0 < found.min() < found.max() < 1
    for a, b in ((found[:, 1:], found[:, :-1]), (found[1:], found[:-1])):  # neighbours don't know of each other
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / a.size**0.5
    # SplitMix64 of the seed 0, from its authors' code: its numbers are those of the state that the seed is mixed to, which 0 stays
    assert (uniform(torch.tensor([0]), torch.arange(3)[None]).numpy() * 2**64).astype(np.uint64)[0].tolist() == [
        pytest.approx(x, abs=4096) for x in (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    ]
    most = torch.tensor([4238867526028716027])  # a seed whose first number is the largest there is
    assert float(uniform(most, torch.tensor([[0]]))) == 1 - 2.0**-53
    assert torch.isfinite(gumbel(most, torch.tensor([[0]]))).all()
    assert np.array_equal(uniform(rows[7:8], torch.tensor([[[11], [2]]])).numpy().ravel(), found[7, [11, 2]])


@pytest.mark.parametrize("how", ["beams", "independent", "without_replacement"])
def test_scores_that_are_no_numbers_are_told(rollouts: Rollouts, how: Any) -> None:
    broken = small_model("full").eval()
    made = Rollouts(rollouts.trie, pad=0, scores="catalogue", batch_tokens=1000)
    made.draw(broken, PROMPTS, how=how, each=3, seeds=[0, 0])  # it was right when it was first looked at
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="the model's scores are not numbers"):
        made.draw(broken, PROMPTS, how=how, each=3, seeds=[0, 0])


def test_every_prompt_has_a_seed(model: Any, rollouts: Rollouts) -> None:
    with pytest.raises(ValueError, match="2 prompts need as many seeds, and there are 1"):
        rollouts.draw(model, PROMPTS, how="independent", each=2, seeds=[0])


def test_a_search_wider_than_the_catalogue_finds_all_of_it(model: Any, rollouts: Rollouts) -> None:
    found = rollouts.draw(model, PROMPTS, how="without_replacement", each=10, seeds=[5, 5])
    assert sorted(found.items[0].tolist()) == [-1, -1, *range(8)]
    assert np.isneginf(found.log_probs[0][found.items[0] < 0]).all()
