"""Ranking metrics during training, for choosing the best checkpoint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.language_model import LanguageModelRanker
from rectune.decoding.ranking import recall_and_ndcg, target_ranks
from rectune.tasks.rows import TaskRows


def validation_metrics(ranker: LanguageModelRanker, rows: TaskRows) -> dict[str, float]:
    """recall@10 and ndcg@10 (seen items not hidden); for a task with answers auc, or where they are numbers the rmse of
    their expected value."""
    if rows.kind == "answer":
        return answer_metrics(rows, ranker.answer(rows))
    place = target_ranks(ranker.rank(rows), rows.target.astype(np.int32))
    return recall_and_ndcg(place, ranker.settings.beams)


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
