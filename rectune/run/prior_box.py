"""The prior of a run: fitted on its split, and given a weight beside the tuned model on validation rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.ranking import chosen_by, recall_and_ndcg, target_ranks
from rectune.decoding.shelf import Shelf
from rectune.log.split import Rows, Split, evenly
from rectune.methods.validation import hidden_while_choosing
from rectune.recipe.box import Box, Held
from rectune.run.asked import Asked, AskedPrior
from rectune.run.models import Models
from rectune.run.sasrec_box import NAME as SASREC
from rectune.runtime.files import inputs
from rectune.runtime.processes import is_main
from rectune.tasks.task_calls import rows_of

WEIGHT = "weight.json"
Score = Callable[[Split, Rows], NDArray[np.float64]]  # -> (rows, items), before the weight


def prior_box(prior: AskedPrior, without: Path) -> Box:
    """The fitted prior; what it holds is a `Score`."""
    keys = {"call": prior.module.__name__, **inputs(prior.arguments, without=without)}

    def build(held: Held, folder: Path) -> None:
        strong = {"sasrec": held[SASREC]} if prior.reads_sasrec else {}
        prior.module.fit(held["split"], folder, **strong, **prior.beside, **prior.arguments)

    return Box(
        "prior", ("split", SASREC) if prior.reads_sasrec else ("split",), lambda: keys, build,
        lambda held, folder: prior.module.load(folder), (prior.module.fit,),
    )  # fmt: skip


def weighted(
    score: Score, split: Split, rows: Rows, weight: float
) -> Callable[[NDArray[np.int64]], NDArray[np.float32]] | None:
    """What `Shelf.prior` takes for some rows, or None for a weight of 0."""
    if weight == 0:
        return None
    return lambda which: (weight * score(split, rows.take(which))).astype(np.float32)


def weight_box(asked: Asked, keys: dict[str, Any], needs: Sequence[str], models: Models) -> Box:
    """The weight with the best NDCG@10 on validation rows, seen items hidden, and what every weight gave there: {"weight",
    "validation"}. `keys`, `needs`: of a ranking by the tuned model."""
    assert asked.prior is not None
    prior = asked.prior

    def build(held: Held, folder: Path) -> None:
        split: Split = held["split"]
        rows = split.validation.take(evenly(len(split.validation), prior.rows))
        task = rows_of(asked.ranked, held, "validation")
        task = task.take(evenly(len(task), prior.rows))
        hidden = hidden_while_choosing(task, split, rows)
        tried = []
        for weight in prior.weights:
            shelf = Shelf(hidden=hidden, prior=weighted(held["prior"], split, rows, weight))
            place = target_ranks(models["tuned"].rank(task, shelf), task.target.astype(np.int32))
            tried.append({"weight": weight, **recall_and_ndcg(place, asked.rank.beams)})
        best = max(tried, key=lambda entry: entry[chosen_by(asked.rank.beams)])
        if is_main():
            (folder / WEIGHT).write_text(json.dumps({"weight": best["weight"], "validation": tried}))

    said = {"ranking": keys, "weights": list(prior.weights), "rows": prior.rows}
    return Box(
        "prior-weight", (*needs, "prior"), lambda: said, build,
        lambda held, folder: json.loads((folder / WEIGHT).read_text()), (weight_box,), resumes=True,
    )  # fmt: skip
