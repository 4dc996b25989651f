"""Log loss: how surprised the probabilities are by what happened."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray


def log_loss(chances: NDArray[np.float64], liked: NDArray[np.int64]) -> NDArray[np.float64]:
    """-log p(what happened), natural logarithm, one value a row; p is clipped to [1e-15, 1 - 1e-15].

    `chances`: probability of a like, `liked`: 0 or 1; shape (rows,). Source: Good, J. Royal Stat. Soc. B 1952.
    """
    clipped = np.clip(chances, 1e-15, 1 - 1e-15)
    return np.asarray(-np.log(np.where(liked == 1, clipped, 1 - clipped)))


class LogLoss(evaluate.Metric):  # type: ignore[misc]
    """`evaluate` wrapper: predictions are probabilities of a like, references 0 or 1; mean over rows."""

    def _info(self) -> Any:
        kinds = {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=log_loss.__doc__, features=datasets.Features(kinds)
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"log_loss": float(log_loss(np.asarray(predictions), np.asarray(references)).mean())}
