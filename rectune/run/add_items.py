"""Naming new items by the index of a finished run, and judging them."""

from __future__ import annotations

import dataclasses
import io
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
from rectune.indexing.item_index import check_unique
from rectune.indexing.quantised import names_of_new
from rectune.log.catalogue import Catalogue
from rectune.log.log import Log, clean_items, with_titles
from rectune.log.split import Split
from rectune.run.added_box import keep
from rectune.run.recommend import prior_of
from rectune.run.run import Run, open_run
from rectune.runtime.files import write_atomic
from rectune.runtime.text_files import read_json_lines, read_lines, read_text
from rectune.tasks.asked_histories import history_split
from rectune.vectors.item_vectors import ItemVectors, join


def _csv(file: Path) -> pl.DataFrame:
    return pl.read_csv(io.StringIO(read_text(file)), infer_schema=False)  # an id such as 0012 is no number


def _json_lines(file: Path) -> pl.DataFrame:
    return pl.DataFrame([row for _, row in read_json_lines(file)], infer_schema_length=None)


READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": pl.read_parquet,
}  # fmt: skip


def add_to_index(folder: str | Path, items: str | Path, rows: str | Path | None = None) -> dict[str, Any]:
    """Give new items names from the index of a run, without tuning; from then on `recommend` lists them too.

    `items`: a CSV, JSON-lines or Parquet file with `item_id`, `title` and the catalogue's other columns. `rows`: JSON lines
    {"items": [ID, …], "target": ID} by which the added items are judged. Returns {"added": how many, "report": or None}.
    Raises ValueError for an index that names no new items, a known or repeated id, an item without text.
    """
    run = open_run(folder, added=True)
    with run.folder.lock():
        added = name_items(run, Path(items))
        judged = (
            read_rows(Path(rows), added.log(Log.load(run.place("log").folder)), added) if rows is not None else None
        )
        place = keep(run.folder, added)
        found = None
        if judged is not None:
            now = open_run(folder, added=True)
            found = judge_added(now, added, judged, prior=prior_of(now, folder))
            write_atomic(place / "report.json", json.dumps(found, indent=1))
    return {"added": added.items.height - (run.asked.added.items.height if run.asked.added else 0), "report": found}


def name_items(run: Run, file: Path) -> Added:
    """Name the items of a file (`item_id`, `title` and other columns of the catalogue), behind those added before.

    Raises ValueError for an id that the catalogue already holds, and for an index that cannot name new items.
    """
    new = read_items(file, run.log)
    codes = names_of_new(run.index, new_vectors(run, new))
    check_unique(np.vstack([run.index.codes, codes]))
    if (before := run.asked.added) is not None:
        new, codes = pl.concat([before.items, new]), np.vstack([before.codes, codes])
    return Added(new, codes)


def read_items(file: Path, log: Log) -> pl.DataFrame:
    """Read new items with the columns of the log's items, cleaned like those; texts that are missing are ''."""
    if file.suffix not in READERS:
        raise ValueError(f"{file.name}: items are read from {', '.join(READERS)} files.")
    table = READERS[file.suffix](file)
    if not table.height:
        raise ValueError(f"{file.name}: the file holds no item.")
    if "item_id" in table.columns:
        ids = pl.Series("item_id", [str(i) for i in table["item_id"].to_list()])
        if ids.is_duplicated().any():
            raise ValueError(f"{file.name}: item `{ids.filter(ids.is_duplicated())[0]}` is given twice.")
        known = set(log.items["item_id"].to_list())
        for item_id in ids:
            if item_id in known:
                raise ValueError(
                    f"{file.name}: the catalogue already has the item `{item_id}`; only new items are added."
                )
    table = clean_items(table, file.name)
    table = table.with_columns(pl.lit("").alias(name) for name in log.items.columns if name not in table.columns)
    return with_titles(table.select(log.items.columns), file.name, {})


def new_vectors(run: Run, items: pl.DataFrame) -> ItemVectors:
    """Vectors of new items from those sources of the run's recipe that its index reads, the others as zeros (LETTER's index reads
    its content only). Raises ValueError for a source that has none for new items, such as a SASRec."""
    nobody = history_split(run.split, [[]])
    log = dataclasses.replace(
        nobody.log, items=items, interactions=nobody.log.interactions.clear(), users=nobody.log.users.clear()
    )
    none = np.zeros(0, dtype=np.int64)
    rows = nobody.test.take(none)
    split = Split(log=log, train=rows, validation=rows, test=rows, train_events=none)
    read = {int(i) for i in run.index.fitted.get("blocks", ())}
    ids = tuple(items["item_id"].to_list())
    parts = []
    for i, call in enumerate(run.asked.vectors):
        if i in read:
            try:
                parts.append(call(split))
            except ValueError as error:
                raise ValueError(
                    f"`vectors.{i}` gives a new item no vector, so this index cannot name it: {error}"
                ) from None
        else:
            parts.append(ItemVectors(ids, (np.zeros((len(ids), 1), dtype=np.float32),)))
    if not parts:
        return ItemVectors(ids, ())
    return join(parts)


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
    asked = history_split(run.split, histories)
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
    new = new_vectors(run, added.items).only(read).joined(scales)
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
