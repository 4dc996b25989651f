"""Metrics during training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rectune.decoding.ranking import Ranking
from rectune.decoding.shelf import Shelf
from rectune.methods.validation import list_metrics, validation_metrics
from rectune.tasks.rows import TaskRows


def test_a_target_outside_a_short_list_is_no_hit() -> None:
    items = np.array([[4, 5, 6], [4, 5, 6]], dtype=np.int32)
    scores = np.array([[-1.0, -2.0, -3.0]] * 2, dtype=np.float32)
    ranking = Ranking(np.arange(2), items, scores, np.zeros(2, dtype=bool))
    ranker: Any = SimpleNamespace(rank=lambda rows, shelf: ranking)
    rows = TaskRows(np.arange(2), lambda i: {}, "item", np.array([5, 9]))
    metrics = validation_metrics(ranker, rows, Shelf(), items=6)
    assert list(metrics) == list_metrics(3) == ["recall@1", "recall@3", "ndcg@3", "coverage@3"]
    assert metrics["coverage@3"] == 0.5
    assert metrics["recall@1"] == 0.0
    assert metrics["recall@3"] == 0.5
    assert metrics["ndcg@3"] == pytest.approx(1 / np.log2(3) / 2)


@pytest.mark.parametrize(
    ("width", "names"),
    [
        (1, ["recall@1", "ndcg@1", "coverage@1"]),
        (10, ["recall@1", "recall@10", "ndcg@10", "coverage@10"]),
        (20, ["recall@1", "recall@10", "ndcg@10", "recall@20", "ndcg@20", "coverage@10"]),
        (70, ["recall@1", "recall@10", "ndcg@10", "recall@50", "ndcg@50", "coverage@10"]),
    ],
)
def test_lists_are_measured_at_their_top_at_ten_and_as_deep_as_they_go(width: int, names: list[str]) -> None:
    items = np.arange(2 * width, dtype=np.int32).reshape(2, width)
    ranking = Ranking(np.arange(2), items, -items.astype(np.float32), np.zeros(2, dtype=bool))
    ranker: Any = SimpleNamespace(rank=lambda rows, shelf: ranking)
    rows = TaskRows(np.arange(2), lambda i: {}, "item", np.array([width - 1, width]))
    metrics = validation_metrics(ranker, rows, Shelf(), items=4 * width)
    assert list(metrics) == names == list_metrics(width)
    assert metrics["recall@1"] == (1.0 if width == 1 else 0.5)
    deep = metrics[[name for name in names if name.startswith("recall@")][-1]]
    assert deep == (1.0 if width <= 50 else 0.5)
    assert metrics[names[-1]] == 2 * min(10, width) / (4 * width)
