"""What a run hands to its evaluator, and what it gets back."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.ranking import Ranking
from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Rows, Split
from rectune.recipe.load import Recipe
from rectune.tasks.rows import TaskRows

if TYPE_CHECKING:
    from rectune.baselines.sasrec_network import SasRec

HIDDEN, SHOWN = "seen items hidden", "seen items not hidden"  # the two protocols, never mixed
SAMPLED = "sampled candidates"  # a third one, for papers that rank no more


@dataclass(frozen=True)
class Before:
    """Test rows of an earlier run as item codes, and how 'untuned' and 'tuned' rank them. `gone`, `trained`: how many were left out, as their target is no
    item any more, or a training event of its user since. `leaked`: of how many test rows of today the target was trained then, None where that is not known."""

    histories: list[list[int]]
    targets: list[int]
    users: list[str]
    gone: int
    trained: int
    leaked: int | None
    rankings: dict[str, Ranking] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """Everything a report is made of.

    `task`: the test rows of the ranked task, `task_section` what the recipe says of it. `rankings[model, protocol]` and `answers[model]` (probability of
    each answer of the task, shape (rows, answers)): 'untuned' and 'tuned', and 'mixed' where the recipe names a prior: the tuned model with it. `prior`: the
    prior alone, rows -> (rows, items), or None; `prior_weight`: its weight and how it was chosen. `wordings`: recall and ndcg under each wording. `shuffled`: the tuned model's lists for `shuffled_rows` with histories in
    random order, seen items hidden. `candidates`: of each test row the target and items that were drawn beside it, and
    `sampled[model]` the lists of these alone. `others`: lists that were made elsewhere, name -> protocol -> lists. `written[model]`: what a model wrote freely after
    the prompts of so many evenly spread test rows.
    `training`: the log of each stage. `cached(name, keys, build, made_by, needs)` returns a folder that `build` filled once for this split, these keys and the boxes of the line
    in `needs`; `made_by`: whose code that is. `sasrec`: the run's SASRec, trained when it is first called, or None. `earlier`: the name of the run that this one goes on from, whose model is the untuned
    one, and `before` that run's test rows.
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
    cached: Callable[..., Path]
    seed: int
    wordings: list[dict[str, Any]] = field(default_factory=list)
    prior: Callable[[Rows], NDArray[np.float64]] | None = None
    prior_weight: dict[str, Any] | None = None
    others: dict[str, dict[str, Ranking]] = field(default_factory=dict)
    candidates: list[NDArray[np.int32]] = field(default_factory=list)
    sampled: dict[str, Ranking] = field(default_factory=dict)
    sasrec: Callable[[], SasRec] | None = None
    earlier: str | None = None
    before: Before | None = None
    written: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """`data` for report.json (`results` is equal to the bit between equal runs, `measured` is not), a page, a table."""

    data: dict[str, Any]
    page: str
    text: str


class Evaluator(Protocol):
    """What judges a run."""

    def __call__(self, evidence: Evidence, **keys: Any) -> Report:
        """Judge."""


def earlier_run(evidence: Evidence) -> dict[str, Any]:
    """For `results`: the name of the run that this one goes on from, and how many items kept a name or got one; nothing for others."""
    if evidence.earlier is None:
        return {}
    grown = {key: count for key, count in evidence.index.health["grown"].items() if key != "from"}
    return {"earlier": {"name": evidence.earlier, "grown": grown}}


class Judge:
    """An evaluator: `function(evidence, **keys) -> Report`, the kind of task that it `judges` ('item', 'choice', 'answer' or 'rating'; None: any),
    and `summarise(reports, cells, links) -> Report`, which sums up the cells of a grid (None: it cannot)."""

    def __init__(
        self, function: Callable[..., Report], judges: str | None = None, summarise: Callable[..., Report] | None = None
    ) -> None:
        self.function, self.judges, self.summarise = function, judges, summarise
        functools.update_wrapper(self, function)

    def __call__(self, evidence: Evidence, **keys: Any) -> Report:
        """Judge."""
        return self.function(evidence, **keys)


def judge(kind: str, *, summarise: Callable[..., Report] | None = None) -> Callable[[Callable[..., Report]], Judge]:
    """Make an evaluator of a function: `@judge('item', summarise=…)`."""
    return lambda function: Judge(function, kind, summarise)


def judge_of(named: Any) -> Judge:
    """What a recipe names as `eval`: an evaluator, or a plain function, which judges any kind of task and sums up no grid."""
    return named if isinstance(named, Judge) else Judge(named)


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
