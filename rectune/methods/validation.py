"""Ranking metrics during training, for choosing the best checkpoint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.language_model import Ranker
from rectune.decoding.ranking import recall_and_ndcg, target_ranks
from rectune.decoding.shelf import Shelf
from rectune.log.split import Rows, Split
from rectune.tasks.rows import TaskRows

DEEPEST = 50  # places; a list may be shorter


def list_metrics(width: int) -> list[str]:
    """Names of what lists of `width` items are measured by during training: at the top, at ten, as deep as they go, and how much of
    the catalogue they show."""
    top, deep = min(10, width), min(DEEPEST, width)
    both = [f"{name}@{k}" for k in ([top, deep] if deep > top else [top]) for name in ("recall", "ndcg")]
    return [*(["recall@1"] if top > 1 else []), *both, f"coverage@{top}"]


def hidden_while_choosing(task: TaskRows, split: Split, rows: Rows) -> list[list[int]] | None:
    """Items of each row that must not be listed where checkpoints, weights and wordings are judged: what its user touched before; None for tasks that list no
    items, and for those whose candidates say what may be listed. `task`: of the rows `rows` of `split`."""
    return [split.seen(rows, i).tolist() for i in range(len(rows))] if task.judged == "item" else None


def validation_metrics(ranker: Ranker, rows: TaskRows, shelf: Shelf, *, items: int = 0) -> dict[str, float]:
    """What `list_metrics` names, of the lists that the shelf allows; for a task with answers auc, or where they are numbers the rmse of
    their expected value. `items`: of the catalogue."""
    if rows.kind == "answer":
        return answer_metrics(rows, ranker.answer(rows))
    ranking = ranker.rank(rows, shelf)
    width, found = ranking.items.shape[1], dict[str, float]()
    place = target_ranks(ranking, rows.target.astype(np.int32))
    for k in (1, 10, DEEPEST):
        found |= recall_and_ndcg(place, width, k=k)
    listed = ranking.items[:, : min(10, width)]
    found[f"coverage@{min(10, width)}"] = len(np.unique(listed[listed >= 0])) / items if items else 0.0
    return {name: found[name] for name in list_metrics(width)}


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
