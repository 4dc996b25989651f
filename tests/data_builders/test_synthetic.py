"""The made-up shop and its oracle."""

from __future__ import annotations

import numpy as np
import pytest
from rectune.data_builders.synthetic import oracle, synthetic

from rectune.baselines.markov import markov
from rectune.baselines.scoring import list_rows
from rectune.log.splits.leave_one_out import leave_one_out


def test_the_shop_is_the_same_for_a_seed_and_another_for_another() -> None:
    one, same, other = (synthetic(users=50, items=120, categories=4, longest=12, seed=s) for s in (1, 1, 2))
    assert one.interactions.equals(same.interactions)
    assert not one.interactions.equals(other.interactions)


def test_the_oracle_gives_probabilities_that_come_true() -> None:
    log = synthetic(users=2000, items=150, categories=5, longest=12, seed=0)
    split = leave_one_out(log)
    chances = oracle(split, split.test, users=2000, items=150, categories=5, longest=12, seed=0)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    own = chances[np.arange(len(chances)), split.targets(split.test)]
    # how often the target comes true at what was stated: the mean of p(target) equals the mean of sum of p²
    assert own.mean() == pytest.approx((chances**2).sum(axis=1).mean(), abs=4 * own.std() / np.sqrt(len(own)))
    for i in range(50):
        assert chances[i, split.seen(split.test, i)].max() == 0


def test_without_habits_a_user_stays_in_the_category_of_two_steps_ago() -> None:
    sizes = {"users": 1000, "items": 150, "categories": 5, "longest": 12, "habits": 0}
    log = synthetic(**sizes)
    split = leave_one_out(log)
    category = np.array(log.items["categories"].to_list())
    codes = log.item_codes
    back, target = category[codes[split.test.target - 2]], category[codes[split.test.target]]
    assert (back == target).mean() > 0.75  # the law, and what the user's taste adds
    chances = oracle(split, split.test, **sizes)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    stays = (chances * (category[None, :] == back[:, None])).sum(axis=1)
    assert stays.min() >= 0.75 - 1e-9
    assert stays.mean() == pytest.approx((back == target).mean(), abs=0.04)


def test_markov_gets_at_most_seventy_percent_of_the_oracle() -> None:
    log = synthetic()
    split = leave_one_out(log)
    place = list_rows(split, split.test, markov(split).score, width=10)[0].place
    best = list_rows(split, split.test, lambda rows: oracle(split, rows), width=10)[0].place
    value = [float(np.where(p < 10, 1 / np.log2(p + 2.0), 0).mean()) for p in (place, best)]
    assert value[0] <= 0.7 * value[1]
    assert value[1] > 0.3


@pytest.mark.parametrize(
    "sizes", [{"users": 0}, {"items": 20}, {"categories": 99}, {"shortest": 9, "longest": 3}, {"habits": -1}]
)
def test_sizes_that_make_no_shop_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="synthetic: "):
        synthetic(**sizes)
