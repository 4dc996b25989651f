"""RMSE: the size of a typical miss, large misses weighing more."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray


def rmse(predicted: NDArray[np.float64], given: NDArray[np.float64]) -> float:
    """sqrt(mean of (predicted - given)²) over rows, in rating steps; NaN without rows.

    Both have shape (rows,). Source: Herlocker et al., ACM TOIS 2004, sec. 4.1.
    """
    return float(np.sqrt(((predicted - given) ** 2).mean())) if len(given) else float("nan")


class Rmse(evaluate.Metric):  # type: ignore[misc]
    """`evaluate` wrapper: predictions are expected ratings, references the ratings given."""

    def _info(self) -> Any:
        kinds = {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=rmse.__doc__, features=datasets.Features(kinds)
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"rmse": rmse(np.asarray(predictions), np.asarray(references))}
