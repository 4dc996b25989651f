"""The k best, ties by place: against a stable sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rectune.decoding.select import merge, top


@given(st.integers(1, 3000), st.integers(1, 60), st.integers(1, 20), st.integers(0, 1000))
def test_top_is_a_stable_sort(n: int, k: int, values: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-values, values, (3, n)).astype(np.float32)
    scores[rng.random((3, n)) < 0.2] = -np.inf
    scores[rng.random((3, n)) < 0.1] = -0.0
    truth = np.argsort(-(scores + 0.0), axis=1, kind="stable")[:, :k]
    assert top(torch.from_numpy(scores), k).tolist() == truth.tolist()


def test_merging_keeps_the_best_of_both_ties_by_node() -> None:
    scores, nodes = merge(
        torch.tensor([[3.0, 1.0, -torch.inf]]), torch.tensor([[7, 9, 0]]), torch.tensor([[3.0, 2.0]]), torch.tensor([[5, 8]]), 3
    )  # fmt: skip
    assert nodes.tolist() == [[5, 7, 8]]
    assert scores.tolist() == [pytest.approx([3.0, 3.0, 2.0])]
