"""Naming new items by the index of a finished run, and judging them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.baselines.scoring import least_equal
from rectune.decoding.shelf import Shelf
from rectune.indexing.added import Added
from rectune.log.catalogue import Catalogue
from rectune.log.log import Log
from rectune.log.split import Split
from rectune.run.added_box import keep
from rectune.run.new_items import names_for, new_vectors, read_items
from rectune.run.prior_box import weighted
from rectune.run.rankings import prior_weight
from rectune.run.run import Run, open_run
from rectune.runtime.files import write_atomic
from rectune.runtime.text_files import read_lines
from rectune.tasks.asked_histories import outside_of
from rectune.vectors.item_vectors import Fitted


def add_to_index(folder: str | Path, items: str | Path, rows: str | Path | None = None) -> dict[str, Any]:
    """Give new items names from the index of a run, without tuning; from then on `recommend` lists them too.

    `items`: a CSV, JSON-lines or Parquet file with `item_id`, `title` and the catalogue's other columns. `rows`: JSON lines
    {"items": [ID, …], "target": ID} by which the added items are judged. Returns {"added": how many, "report": or None}.
    Raises ValueError for an index that names no new items, a known or repeated id, an item without text.
    """
    run = open_run(folder, added=True)
    if rows is not None and run.rows.judged == "choice":
        raise ValueError("`--rows`: this run chooses among candidates, and these rows give none. Leave `--rows` out.")
    with run.folder.lock():
        added = name_items(run, Path(items))
        judged = (
            read_rows(Path(rows), added.log(Log.load(run.place("log").folder)), added) if rows is not None else None
        )
        place = keep(run.folder, added)
        found = None
        if judged is not None:
            now = open_run(folder, added=True)
            found = judge_added(now, added, judged, prior=_prior_of(now, folder))
            write_atomic(place / "report.json", json.dumps(found, indent=1))
    return {"added": added.items.height - (run.asked.added.items.height if run.asked.added else 0), "report": found}


def _prior_of(run: Run, folder: str | Path) -> Callable[[Split], Any] | None:
    """What `Shelf.prior` takes for the test rows of a split, or None where the run has no prior beside its model."""
    if run.asked.prior is None:
        return None
    plain = open_run(folder)  # a prior belongs to the catalogue of the tuning
    weight = prior_weight(plain)["weight"]
    return lambda split: weighted(plain["prior"], split, split.test, weight)


def name_items(run: Run, file: Path) -> Added:
    """Name the items of a file (`item_id`, `title` and other columns of the catalogue), behind those added before.

    Raises ValueError for an id that the catalogue already holds, and for an index that cannot name new items.
    """
    new = read_items(file, run.log.items)
    codes = names_for(new, run.index, run.asked.vectors, _fitted(run))
    if (before := run.asked.added) is not None:
        new, codes = pl.concat([before.items, new]), np.vstack([before.codes, codes])
    return Added(new, codes)


def _fitted(run: Run) -> Sequence[Fitted]:
    """What the run's sources of vectors learned."""
    return () if run.vectors is None else run.vectors.fitted


def judge_added(
    run: Run,
    added: Added,
    rows: tuple[list[list[int]], list[int]],
    *,
    prior: Callable[[Split], Any] | None = None,
    k: int = 10,
) -> dict[str, Any]:
    """Recall at `k` (at most `rank.beams`) of targets that were added; `rows`: histories and targets as item codes.

    In the whole catalogue, seen items hidden, and among the added items alone: the model, the model with what `prior` gives
    for a split of the histories, the text nearest-neighbour (mean cosine of the history's vectors with the item's), chance.
    """
    histories, targets = rows
    k = min(k, run.asked.rank.beams)
    first = run.log.n_items - added.items.height
    apart = np.arange(first, run.log.n_items)
    asked = outside_of(run.split).split(histories)
    ranker = run.models["tuned"]
    hidden = [sorted(set(history)) for history in histories]
    goal = np.array(targets)
    shelves = {
        "whole catalogue": Shelf(hidden=hidden),
        "added items alone": Shelf(hidden=hidden, only=[apart.tolist()] * len(histories)),
    }

    def hit(beside: Any) -> dict[str, float]:
        found = {}
        for name, shelf in shelves.items():
            listed = ranker.rank(run.rows_of_split(asked), dataclasses.replace(shelf, prior=beside)).items[:, :k]
            found[name] = float((listed == goal[:, None]).any(1).mean())
        return found

    near = text_neighbours(run, added, histories)
    for row, seen in enumerate(hidden):
        near[row, seen] = -np.inf
    own = near[np.arange(len(goal)), goal][:, None]
    place = {
        "whole catalogue": (near >= least_equal(own)).sum(1) - 1,
        "added items alone": (near[:, first:] >= least_equal(own)).sum(1) - 1,
    }
    return {
        "added": len(apart), "rows": len(goal), "k": k, "model": hit(None),
        **({} if prior is None else {"model + prior": hit(prior(asked))}),
        "text nearest-neighbour": {name: float((places < k).mean()) for name, places in place.items()},
        "chance": {"whole catalogue": k / run.log.n_items, "added items alone": min(1.0, k / len(apart))},
    }  # fmt: skip


def text_neighbours(run: Run, added: Added, histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Mean cosine of each history's vectors with each item's, (rows, items), over the blocks that the index reads."""
    read = [int(i) for i in run.index.fitted["blocks"]]
    scales = run.index.fitted["scales"]
    old = run["vectors"].only(read).joined(scales)
    new = new_vectors(added.items, run.index, run.asked.vectors, _fitted(run)).only(read).joined(scales)
    every = np.vstack([old, new])
    every = every / np.maximum(np.linalg.norm(every, axis=1, keepdims=True), 1e-12)
    mean = np.stack([every[list(h)].mean(0) if len(h) else np.zeros(every.shape[1]) for h in histories])
    return np.asarray(mean @ every.T, dtype=np.float32)


def read_rows(file: Path, log: Log, added: Added) -> tuple[list[list[int]], list[int]]:
    """Histories and targets (item codes) of JSON lines {"items": [ID, …], "target": ID}; `log` is the one with the new items.

    Raises ValueError for an unknown item, and for a target that is not an added one.
    """
    ids = Catalogue(log)
    new = set(added.items["item_id"].to_list())
    histories, targets = [], []
    for number, text in read_lines(file):
        try:
            row = json.loads(text)
            named, target = [str(item) for item in row["items"]], str(row["target"])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f'{file.name}:{number}: a line must be {{"items": [ID, …], "target": ID}}.') from None
        if target not in new:
            raise ValueError(f"{file.name}:{number}: the target `{target}` is not an added item.")
        histories.append(ids.codes(named))
        targets.append(ids.codes([target])[0])
    if not histories:
        raise ValueError(f"{file.name}: the file holds no row.")
    return histories, targets
