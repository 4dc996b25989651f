"""The inverse of a large symmetric matrix in place, a stripe of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy import linalg
from tqdm import tqdm

from rectune.runtime.room import Matrix

STRIPE = 512  # rows; the same wherever the matrix lies, so that the inverse is equal to the bit


def stripes(count: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each stripe of `count` rows."""
    return pairwise([*range(0, count, STRIPE), count])


def negative_inverse(matrix: Matrix, *, said: str) -> None:
    """Put -A⁻¹ in the place of a symmetric positive definite matrix A; only its diagonal blocks and what stands below is read.

    The symmetric sweep by blocks (Goodnight, The American Statistician 1979): of a pivot block K with panel W = A[:, K] and D = A[K, K]⁻¹,
    A -= W D Wᵀ, A[:, K] = W D, A[K, K] = -D. items³ operations; in memory are two panels of `STRIPE` columns and a stripe. `said`: what
    a bar calls it.
    """
    n = len(matrix)
    for begin, end in tqdm(list(stripes(n)), desc=said, unit="block", disable=n < 4000):
        panel = _panel(matrix, begin, end)
        pivot = linalg.inv(panel[begin:end], check_finite=False)
        swept = panel @ ((pivot + pivot.T) / 2)
        for a, b in stripes(n):
            rows = matrix.window(a, b)
            if a == begin:
                rows[:, :a] = swept[:a].T
                rows[:, a:b] = -(pivot + pivot.T) / 2
                continue
            rows[:, :b] -= swept[a:b] @ panel[:b].T
            if a > begin:
                rows[:, begin:end] = swept[a:b]
    _mirror(matrix)


def _panel(matrix: Matrix, begin: int, end: int) -> np.ndarray:  # type: ignore[type-arg]
    """The columns `begin` to `end` of the symmetric matrix, (rows, end - begin)."""
    panel = np.empty((len(matrix), end - begin))
    own = matrix.window(begin, end)
    panel[:begin] = own[:, :begin].T
    for a, b in stripes(len(matrix)):
        if a >= begin:
            panel[a:b] = matrix.window(a, b)[:, begin:end]
    return panel


def _mirror(matrix: Matrix) -> None:
    """Write what stands below the diagonal above it, too."""
    for a, b in stripes(len(matrix)):
        rows = matrix.window(a, b)
        rows[:, a:b] = (rows[:, a:b] + rows[:, a:b].T) / 2
        for c, d in stripes(len(matrix)):
            if c > a:
                rows[:, c:d] = matrix.window(c, d)[:, a:b].T
