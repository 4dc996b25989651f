"""Coverage@k: the share of the catalogue that is recommended to anybody."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def coverage(items: NDArray[np.int32], n_items: int, k: int) -> float:
    """|items that stand among anybody's first k| / |catalogue|; `items` (rows, places), -1 where a list is short.

    Source: Ge, Delgado-Battenfeld, Jannach, RecSys 2010 (catalogue coverage).
    """
    listed = np.unique(items[:, :k])
    return float((listed >= 0).sum() / n_items)
