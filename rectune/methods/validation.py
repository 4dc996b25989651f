"""Ranking metrics during training, for choosing the best checkpoint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.language_model import Ranker
from rectune.decoding.ranking import recall_and_ndcg, target_ranks
from rectune.decoding.shelf import Shelf
from rectune.tasks.rows import TaskRows


def validation_metrics(ranker: Ranker, rows: TaskRows, shelf: Shelf) -> dict[str, float]:
    """recall@10 and ndcg@10 of the lists that the shelf allows; for a task with answers auc, or where they are numbers the rmse of
    their expected value."""
    if rows.kind == "answer":
        return answer_metrics(rows, ranker.answer(rows))
    ranking = ranker.rank(rows, shelf)
    return recall_and_ndcg(target_ranks(ranking, rows.target.astype(np.int32)), ranking.items.shape[1])


def answer_metrics(rows: TaskRows, chances: NDArray[np.float64]) -> dict[str, float]:
    """auc of the last answer, NaN where all rows have the same one; where answers are numbers, rmse of their expected value.

    `chances`: of each answer, shape (rows, answers).
    """
    if rows.values:
        values = np.array(rows.values)
        return {"rmse": float(np.sqrt(np.mean((chances @ values - values[rows.target]) ** 2)))}
    from sklearn.metrics import roc_auc_score

    both = len(np.unique(rows.target)) > 1
    return {"auc": float(roc_auc_score(rows.target, chances[:, -1])) if both else float("nan")}
