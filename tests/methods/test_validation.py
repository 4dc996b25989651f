"""Metrics during training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rectune.decoding.ranking import Ranking
from rectune.decoding.shelf import Shelf
from rectune.methods.validation import validation_metrics
from rectune.tasks.rows import TaskRows


def test_a_target_outside_a_short_list_is_no_hit() -> None:
    items = np.array([[4, 5, 6], [4, 5, 6]], dtype=np.int32)
    scores = np.array([[-1.0, -2.0, -3.0]] * 2, dtype=np.float32)
    ranking = Ranking(np.arange(2), items, scores, np.zeros(2, dtype=bool))
    ranker: Any = SimpleNamespace(rank=lambda rows, shelf: ranking)
    rows = TaskRows(np.arange(2), lambda i: {}, "item", np.array([5, 9]))
    metrics = validation_metrics(ranker, rows, Shelf())
    assert metrics["recall@3"] == 0.5
    assert metrics["ndcg@3"] == pytest.approx(1 / np.log2(3) / 2)
