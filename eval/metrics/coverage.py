"""Coverage@k: the share of the catalogue that is recommended to anybody."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray


def coverage(items: NDArray[np.int32], n_items: int, k: int) -> float:
    """|items that stand among anybody's first k| / |catalogue|; `items` (rows, places), -1 where a list is short.

    Source: Ge, Delgado-Battenfeld, Jannach, RecSys 2010 (catalogue coverage).
    """
    listed = np.unique(items[:, :k])
    return float((listed >= 0).sum() / n_items)


class Coverage(evaluate.Metric):  # type: ignore[misc]
    """`evaluate` wrapper: predictions are ranked item ids; give the size of the catalogue as `n_items`."""

    def _info(self) -> Any:
        return evaluate.MetricInfo(
            description=__doc__, citation="", inputs_description=coverage.__doc__,
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("int64"))}),
        )  # fmt: skip

    def _compute(self, predictions: Any, references: Any = None, n_items: int = 0, k: int = 10) -> dict[str, float]:
        if n_items < 1:
            raise ValueError("coverage needs the size of the catalogue: compute(..., n_items=...).")
        width = max(map(len, predictions))
        table = np.array([[*p, *[-1] * (width - len(p))] for p in predictions])
        return {f"coverage@{k}": coverage(table, n_items, k)}
