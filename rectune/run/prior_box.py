"""The prior of a run: fitted on its split, and given a weight beside the tuned model on validation rows."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.language_model import LanguageModelRanker, Shelf
from rectune.decoding.ranking import recall_and_ndcg, target_ranks
from rectune.log.split import Rows, Split, evenly
from rectune.recipe.calls import resolve_call
from rectune.recipe.checking import check_keywords
from rectune.recipe.fingerprints import source_of
from rectune.run.folder import Stage
from rectune.runtime.files import inputs
from rectune.runtime.processes import is_main

if TYPE_CHECKING:
    from rectune.run.task_materials import TaskMaterials

OWN = ("call", "weight", "rows")
WEIGHTS = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0)


@dataclass
class RunPrior:
    """The section `rank.prior`: `call`, a module with `fit` and `load`; `weight`, one number or several to choose from;
    `rows`, how many validation rows the choice is made on; and keys of `fit`."""

    line: TaskMaterials

    def __post_init__(self) -> None:
        section = self.line.rank_settings.prior or {}
        where = self.line.recipe.where
        self.module = resolve_call(self.line.recipe, "rank.prior")
        for needed in ("fit", "load"):
            if not hasattr(self.module, needed):
                raise ValueError(f"{where('rank.prior.call')}: a prior is a module with `fit` and `load`.")
        weights = section.get("weight", list(WEIGHTS))
        self.weights = [float(w) for w in (weights if isinstance(weights, list) else [weights]) if _number(w)]
        if not self.weights or len(self.weights) < (len(weights) if isinstance(weights, list) else 1):
            raise ValueError(
                f"{where('rank.prior.weight')}: got {weights!r}; give a number from 0 on, or a list of them."
            )
        self.rows = section.get("rows", 2000)
        if not isinstance(self.rows, int) or self.rows < 1:
            raise ValueError(f"{where('rank.prior.rows')}: got {self.rows!r}, but it must be a whole number from 1 on.")
        keys = {key: value for key, value in section.items() if key not in OWN}
        self.arguments = check_keywords(
            self.module.fit, keys, lambda k: where(f"rank.prior.{k}"), given=("split", "folder")
        )
        if "seed" in inspect.signature(self.module.fit).parameters:
            self.arguments.setdefault("seed", self.line.seed)

    @cached_property
    def stage(self) -> Stage:
        """The stage that holds the fitted prior."""
        keys = {"call": self.module.__name__, "source": source_of(self.module.fit)}
        keys.update(inputs(self.arguments, without=self.line.folder.path))
        return self.line.folder.stage(
            "prior",
            keys,
            [self.line.split_stage],
            lambda work: self.module.fit(self.line.split, work, **self.arguments),
        )

    @cached_property
    def score(self) -> Callable[[Split, Rows], NDArray[np.float64]]:
        """(split, rows) -> scores (rows, items), before the weight."""
        loaded: Callable[[Split, Rows], NDArray[np.float64]] = self.module.load(self.stage.folder)
        return loaded

    def of(self, split: Split, rows: Rows, weight: float) -> Callable[[NDArray[np.int64]], NDArray[np.float32]] | None:
        """What `Shelf.prior` takes for some rows, or None for a weight of 0."""
        if weight == 0:
            return None
        return lambda which: (weight * self.score(split, rows.take(which))).astype(np.float32)

    def weighed(self, keys: Any, ranker: Callable[[], LanguageModelRanker], tuned: Stage) -> dict[str, Any]:
        """The weight with the best NDCG@10 on validation rows, seen items hidden, and what every weight gave there.

        `keys`: what a ranking of the tuned model depends on. `ranker`: gives that model, if it is needed; `tuned`:
        the stage that holds it. One weight is taken
        as it is. Raises ValueError where there are several and no validation rows.
        """
        if len(self.weights) == 1:
            return {"weight": self.weights[0], "validation": []}
        if not len(self.line.split.validation):
            raise ValueError(
                "`rank.prior.weight`: this split has no validation rows to choose a weight on. Give one number."
            )

        def build(work: Path) -> None:
            rows = self.line.split.validation.take(evenly(len(self.line.split.validation), self.rows))
            hidden = [self.line.split.seen(rows, i).tolist() for i in range(len(rows))]
            task = self.line.part_rows("validation")
            task = task.take(evenly(len(task), self.rows))
            tried = []
            for weight in self.weights:
                shelf = Shelf(hidden=hidden, prior=self.of(self.line.split, rows, weight))
                place = target_ranks(ranker().rank(task, shelf), task.target.astype(np.int32))
                tried.append({"weight": weight, **recall_and_ndcg(place, self.line.rank_settings.beams)})
            best = max(tried, key=lambda entry: entry["ndcg@10"])
            if is_main():
                (work / "weight.json").write_text(json.dumps({"weight": best["weight"], "validation": tried}))

        asked = {"ranking": keys, "weights": self.weights, "rows": self.rows}
        needed = [self.stage, tuned, self.line.base_stage, self.line.index_stage]
        stage = self.line.folder.stage("prior-weight", asked, needed, build, resumes=True)
        chosen: dict[str, Any] = json.loads((stage.folder / "weight.json").read_text())
        return chosen


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
