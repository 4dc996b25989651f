"""Rankings: for each row an ordered list of real items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rectune.baselines.scoring import discounted, least_equal


@dataclass(frozen=True)
class Ranking:
    """Ordered lists of distinct items.

    `row`: (rows,) int64. `items`: (rows, k) int32, best first, -1 where a list is short. `scores`: (rows, k)
    float32, -inf there. `exact`: (rows,) bool, whether a list is proven to be the true top k.
    """

    row: NDArray[np.int64]
    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    exact: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many items each list holds, shape (rows,)."""
        return np.asarray((self.items >= 0).sum(axis=1))

    def save(self, file: Path) -> None:
        """Write one Parquet file, a row a list."""
        import polars as pl

        pl.DataFrame(
            {"row": self.row, "items": self.items.tolist(), "scores": self.scores.tolist(), "exact": self.exact},
            schema={"row": pl.Int64, "items": pl.List(pl.Int32), "scores": pl.List(pl.Float32), "exact": pl.Boolean},
        ).write_parquet(file)

    @staticmethod
    def load(file: Path) -> Ranking:
        """Read what `save` wrote."""
        import polars as pl

        frame = pl.read_parquet(file)
        items = np.array(frame["items"].to_list(), dtype=np.int32).reshape(frame.height, -1)
        scores = np.array(frame["scores"].to_list(), dtype=np.float32).reshape(frame.height, -1)
        return Ranking(frame["row"].to_numpy(), items, scores, frame["exact"].to_numpy())


def join_rankings(parts: Sequence[Ranking], rows: NDArray[np.int64]) -> Ranking:
    """Put parts together in the order of `rows`. Raises ValueError unless each row occurs exactly once."""
    row = np.concatenate([part.row for part in parts])
    order = np.argsort(row, kind="stable")
    wanted = np.argsort(np.argsort(rows, kind="stable"), kind="stable")
    if not np.array_equal(row[order], np.sort(rows)):
        raise ValueError(f"the parts hold {len(row)} rows, but {len(rows)} were asked for, each once.")
    items, scores, exact = (
        np.concatenate([getattr(p, name) for p in parts])[order] for name in ("items", "scores", "exact")
    )
    return Ranking(rows, items[wanted], scores[wanted], exact[wanted])


def recall_and_ndcg(place: NDArray[np.int64], width: int, *, k: int = 10) -> dict[str, float]:
    """recall@k and ndcg@k of targets at `place` (rows,) in lists of `width`; absent targets stand at `width`. 0 for no rows.

    Where the lists are shorter than `k`, k is their width, and so the figures are called.
    """
    k = min(k, width)
    if not len(place):
        return {f"recall@{k}": 0.0, f"ndcg@{k}": 0.0}
    return {f"recall@{k}": float((place < k).mean()), f"ndcg@{k}": float(discounted(place, k).mean())}


def chosen_by(width: int) -> str:
    """The metric by which checkpoints, baselines and priors are chosen, on validation rows and with seen items hidden: NDCG@10, or of
    shorter lists NDCG at their `width`."""
    return f"ndcg@{min(10, width)}"


def target_ranks(ranking: Ranking, targets: NDArray[np.int32]) -> NDArray[np.int64]:
    """Place of the target in each list, from 0, ties counted against it (scores less by at most `NEAR` times its own are equal); the list's
    width where it is absent."""
    width = ranking.items.shape[1]
    found = ranking.items == targets[:, None]
    score = np.where(found, ranking.scores, -np.inf).max(axis=1)
    ahead = (ranking.scores >= least_equal(score)[:, None]).sum(axis=1) - 1
    return np.asarray(np.where(found.any(axis=1), ahead, width), dtype=np.int64)
