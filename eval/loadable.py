"""Our metrics in the form of `evaluate`, all in this file: `evaluate.load(rectune.eval.loadable.__file__, "ndcg")`, or `Loadable("ndcg")`.

They stand apart from the formulas because `evaluate` takes seconds to import; a report is made without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import datasets
import evaluate
import numpy as np
from rectune.eval.metrics.accuracy import accuracy
from rectune.eval.metrics.auc import auc
from rectune.eval.metrics.calibration_error import calibration_error
from rectune.eval.metrics.coverage import coverage
from rectune.eval.metrics.hits import hits_of
from rectune.eval.metrics.log_loss import log_loss
from rectune.eval.metrics.mae import mae
from rectune.eval.metrics.mrr import mrr
from rectune.eval.metrics.ndcg import ndcg
from rectune.eval.metrics.novelty import novelty
from rectune.eval.metrics.recall import recall
from rectune.eval.metrics.rmse import rmse
from rectune.eval.metrics.user_auc import mean_user_auc

INTEGER, NUMBER = datasets.Value("int64"), datasets.Value("float64")
ITEMS = datasets.Sequence(INTEGER)


class Form(NamedTuple):
    """How a formula is called through `evaluate`."""

    formula: Callable[..., Any]
    kinds: dict[str, Any]  # of a row's prediction and reference
    compute: Callable[..., Any]  # (predictions, references, **what else compute takes) -> the figure
    at_k: bool = False  # the figure is named with its k


def per_row(formula: Callable[..., Any], predicted: Any, given: Any) -> Form:
    """A formula over (predictions, references) of shape (rows,) each; the mean where it gives one value a row."""
    return Form(
        formula, {"predictions": predicted, "references": given},
        lambda predictions, references, **options: np.mean(formula(np.asarray(predictions), np.asarray(references), **options)),
    )  # fmt: skip


def of_hits(formula: Callable[..., Any]) -> Form:
    """A formula over hits: predictions are ranked item ids, references the relevant ids; the mean over rows that have any."""
    return Form(
        formula, {"predictions": ITEMS, "references": ITEMS},
        lambda predictions, references, k: np.nanmean(formula(*hits_of(predictions, references), k)), at_k=True,
    )  # fmt: skip


def of_lists(formula: Callable[..., Any], needed: str, what: str) -> Form:
    """A formula over ranked item ids alone, which needs something about the catalogue to be given to `compute`."""

    def compute(predictions: Any, references: Any, k: int, **options: Any) -> Any:
        if options.get(needed) is None:
            raise ValueError(f"{formula.__name__} needs {what}: compute(..., {needed}=...).")
        width = max(map(len, predictions))
        return np.nanmean(
            formula(np.array([[*p, *[-1] * (width - len(p))] for p in predictions]), np.asarray(options[needed]), k)
        )

    return Form(formula, {"predictions": ITEMS}, compute, at_k=True)


def of_users(predictions: Any, references: Any, users: Any = None) -> float:
    """`mean_user_auc`, which needs a user a row."""
    if users is None:
        raise ValueError("user_auc needs one user id a row: compute(..., users=[...]).")
    return mean_user_auc(np.asarray(predictions), np.asarray(references), np.asarray(users))


FORMS = {
    "recall": of_hits(recall),
    "ndcg": of_hits(ndcg),
    "mrr": of_hits(mrr),
    "coverage": of_lists(coverage, "n_items", "the size of the catalogue"),
    "novelty": of_lists(novelty, "popularity", "the training count of each item"),
    "auc": per_row(auc, NUMBER, INTEGER),
    "user_auc": Form(mean_user_auc, {"predictions": NUMBER, "references": INTEGER}, of_users),
    "log_loss": per_row(log_loss, NUMBER, INTEGER),
    "calibration_error": per_row(calibration_error, NUMBER, INTEGER),
    "rmse": per_row(rmse, NUMBER, NUMBER),
    "mae": per_row(mae, NUMBER, NUMBER),
    "accuracy": per_row(accuracy, INTEGER, INTEGER),
}


class Loadable(evaluate.Metric):  # type: ignore[misc]
    """One of our metrics, by its name in `FORMS`, as `evaluate` takes it."""

    def _info(self) -> Any:
        if self.config_name not in FORMS:
            raise ValueError(f"{self.config_name!r} is no metric of rectune; there are {', '.join(FORMS)}.")
        form = FORMS[self.config_name]
        return evaluate.MetricInfo(
            description=form.formula.__doc__,
            citation="",
            inputs_description=form.compute.__doc__ or "",
            features=datasets.Features(form.kinds),
        )

    def _compute(self, predictions: Any, references: Any = None, **options: Any) -> dict[str, float]:
        form = FORMS[self.config_name]
        if not form.at_k:
            return {self.config_name: float(form.compute(predictions, references, **options))}
        k = options.setdefault("k", 10)
        return {f"{self.config_name}@{k}": float(form.compute(predictions, references, **options))}
