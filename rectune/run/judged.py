"""What a run hands to its evaluator, and what it gets back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.ranking import Ranking
from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Rows, Split
from rectune.recipe.load import Recipe
from rectune.tasks.rows import TaskRows

HIDDEN, SHOWN = "seen items hidden", "seen items not hidden"  # the two protocols, never mixed


@dataclass(frozen=True)
class Evidence:
    """Everything a report is made of.

    `task`: the test rows of the ranked task, `task_section` what the recipe says of it. `rankings[model, protocol]` and `answers[model]` (probability of
    each answer of the task, shape (rows, answers)): 'untuned' and 'tuned', and 'mixed' where the recipe names a prior: the tuned model with it. `prior`: the
    prior alone, rows -> (rows, items), or None; `prior_weight`: its weight and how it was chosen. `wordings`: recall and ndcg under each wording. `shuffled`: the tuned model's lists for `shuffled_rows` with histories in
    random order, seen items hidden. `training`: the log of each stage. `cached(name, keys, build)` returns a folder
    that `build` filled once for this split and these keys.
    """

    recipe: Recipe
    split: Split
    index: ItemIndex
    task: TaskRows
    task_section: dict[str, Any]
    rankings: dict[tuple[str, str], Ranking]
    answers: dict[str, NDArray[np.float64]]
    shuffled: Ranking | None
    shuffled_rows: Rows | None
    training: list[list[dict[str, Any]]]
    audits: list[dict[str, Any]]
    measured: dict[str, Any]
    environment: dict[str, Any]
    cached: Callable[[str, Any, Callable[[Path], None]], Path]
    seed: int
    wordings: list[dict[str, Any]] = field(default_factory=list)
    prior: Callable[[Rows], NDArray[np.float64]] | None = None
    prior_weight: dict[str, Any] | None = None


@dataclass(frozen=True)
class Report:
    """`data` for report.json (`results` is equal to the bit between equal runs, `measured` is not), a page, a table."""

    data: dict[str, Any]
    page: str
    text: str


def as_json(data: dict[str, Any]) -> str:
    """A report's data as JSON text, NumPy values as plain ones; null for what is no number, as JSON has neither NaN nor infinity."""
    return json.dumps(_plain(data), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
