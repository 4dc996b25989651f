"""Accuracy: how often the answer is the right one."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray


def accuracy(answered: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    """share of rows whose answer is the right one; NaN without rows. Both are positions of answers, shape (rows,).

    Source: Sokolova and Lapalme, Information Processing and Management 2009, table 3 (accuracy for one label a row).
    """
    return float((answered == right).mean()) if len(right) else float("nan")


class Accuracy(evaluate.Metric):  # type: ignore[misc]
    """`evaluate` wrapper: predictions and references are positions of answers."""

    def _info(self) -> Any:
        kinds = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=accuracy.__doc__, features=datasets.Features(kinds)
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"accuracy": accuracy(np.asarray(predictions), np.asarray(references))}
