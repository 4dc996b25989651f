"""Ranking metrics during training, for choosing the best checkpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rectune.ranker import LanguageModelRanker
from rectune.ranking import recall_and_ndcg, target_ranks
from rectune.split import evenly
from rectune.tasks import TaskRows

if TYPE_CHECKING:
    from rectune.line import Line


def validation_metrics(ranker: LanguageModelRanker, rows: TaskRows) -> dict[str, float]:
    """recall@10 and ndcg@10 (seen items not hidden); for a task with answers auc, or where they are numbers the rmse of
    their expected value."""
    if rows.values:
        values = np.array(rows.values)
        return {"rmse": float(np.sqrt(np.mean((ranker.answer(rows) @ values - values[rows.target]) ** 2)))}
    if rows.kind == "answer":
        from sklearn.metrics import roc_auc_score

        chances = ranker.answer(rows)[:, -1]
        both = len(np.unique(rows.target)) > 1
        return {"auc": float(roc_auc_score(rows.target, chances)) if both else float("nan")}
    place = target_ranks(ranker.rank(rows), rows.target.astype(np.int32))
    return recall_and_ndcg(place, ranker.settings.beams)


def validation_metrics_of(line: Line, model: Any, most: int) -> dict[str, float]:
    """Ranking metrics of a model in training on a sample of at most `most` validation rows of its run."""
    rows = line.part_rows("validation")
    sample = rows.take(evenly(len(rows), most))
    ranker = line.as_ranker(model)
    ranker.settings = replace(line.rank_settings, exact=False)  # the beam chooses checkpoints, whatever lists are for
    ranker.progress = False
    return validation_metrics(ranker, sample)
