"""MAE: the mean size of a miss."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray


def mae(predicted: NDArray[np.float64], given: NDArray[np.float64]) -> float:
    """mean of |predicted - given| over rows, in rating steps; NaN without rows.

    Both have shape (rows,). Source: Herlocker et al., ACM TOIS 2004, sec. 4.1.
    """
    return float(np.abs(predicted - given).mean()) if len(given) else float("nan")


class Mae(evaluate.Metric):  # type: ignore[misc]
    """`evaluate` wrapper: predictions are expected ratings, references the ratings given."""

    def _info(self) -> Any:
        kinds = {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=mae.__doc__, features=datasets.Features(kinds)
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"mae": mae(np.asarray(predictions), np.asarray(references))}
