"""Items that come after a run: named by its fitted index, listed beside the others, and judged apart."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.decoding.language_model import Shelf
from rectune.indexing.added import Added
from rectune.indexing.item_index import check_unique
from rectune.indexing.quantised import names_of_new
from rectune.log.catalogue import Catalogue
from rectune.log.log import Log, clean_items, with_titles
from rectune.log.split import Split
from rectune.runtime.files import write_atomic
from rectune.tasks.asked_histories import history_split
from rectune.vectors.item_vectors import ItemVectors, join

if TYPE_CHECKING:
    from rectune.run.line import Line

POINTER = "added.json"
READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": partial(pl.read_csv, infer_schema=False),  # an id such as 0012 is no number
    ".jsonl": pl.read_ndjson,
    ".ndjson": pl.read_ndjson,
    ".parquet": pl.read_parquet,
}


def added_to(folder: Path, stages: dict[str, str]) -> Added | None:
    """What was added to a run folder, or None. `stages`: the run's fingerprints.

    Raises ValueError when the run was tuned again since with another log or index: the names would mean other items.
    """
    if not (folder / POINTER).exists():
        return None
    about = json.loads((folder / POINTER).read_text())
    if [about["log"], about["index"]] != [stages["log"], stages["index"]]:
        raise ValueError(
            f"{folder}: items were added to an index that this run no longer has. Remove {folder / POINTER} and run "
            "`rectune index add` again."
        )
    place = folder / about["folder"]
    return Added(pl.read_parquet(place / "items.parquet"), np.load(place / "codes.npy"))


def name_items(line: Line, file: Path) -> Added:
    """Name the items of a file (`item_id`, `title` and other columns of the catalogue), behind those added before.

    Raises ValueError for an id that the catalogue already holds, and for an index that cannot name new items.
    """
    new = read_items(file, line.log)
    codes = names_of_new(line.index, new_vectors(line, new))
    check_unique(np.vstack([line.index.codes, codes]))
    if line.added is not None:
        new, codes = pl.concat([line.added.items, new]), np.vstack([line.added.codes, codes])
    return Added(new, codes)


def keep(line: Line, added: Added) -> Path:
    """Write added items into the run folder: a folder of their own, then a file that points to it. Returns that folder."""
    place = line.folder.path / f"added-{added.mark}"
    work = place.with_suffix(".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    added.items.write_parquet(work / "items.parquet")
    np.save(work / "codes.npy", added.codes)
    shutil.rmtree(place, ignore_errors=True)
    work.rename(place)
    about = {"folder": place.name, **{name: line.folder.pinned[name] for name in ("log", "index")}}
    write_atomic(line.folder.path / POINTER, json.dumps(about))
    for old in line.folder.path.glob("added-*"):
        if old != place:
            shutil.rmtree(old, ignore_errors=True)
    return place


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


def new_vectors(line: Line, items: pl.DataFrame) -> ItemVectors:
    """Vectors of new items from those sources of the run's recipe that its index reads, the others as zeros (LETTER's index reads
    its content only). Raises ValueError for a source that has none for new items, such as a SASRec."""
    nobody = history_split(line.split, [[]])
    log = dataclasses.replace(
        nobody.log, items=items, interactions=nobody.log.interactions.clear(), users=nobody.log.users.clear()
    )
    none = np.zeros(0, dtype=np.int64)
    rows = nobody.test.take(none)
    split = Split(log=log, train=rows, validation=rows, test=rows, train_events=none)
    read = {int(i) for i in line.index.fitted.get("blocks", ())}
    ids = tuple(items["item_id"].to_list())
    parts = []
    for i, (function, arguments) in enumerate(line.vector_calls):
        if i in read:
            try:
                parts.append(function(split, **arguments))
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
    line: Line,
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
    k = min(k, line.rank_settings.beams)
    first = line.log.n_items - added.items.height
    apart = np.arange(first, line.log.n_items)
    asked = history_split(line.split, histories)
    ranker = line.ranker("tuned")
    hidden = [sorted(set(history)) for history in histories]
    goal = np.array(targets)
    shelves = {
        "whole catalogue": Shelf(hidden=hidden),
        "added items alone": Shelf(hidden=hidden, only=[apart.tolist()] * len(histories)),
    }

    def hit(beside: Any) -> dict[str, float]:
        found = {}
        for name, shelf in shelves.items():
            listed = ranker.rank(line.task_rows(asked), dataclasses.replace(shelf, prior=beside)).items[:, :k]
            found[name] = float((listed == goal[:, None]).any(1).mean())
        return found

    near = text_neighbours(line, added, histories)
    for row, seen in enumerate(hidden):
        near[row, seen] = -np.inf
    own = near[np.arange(len(goal)), goal][:, None]
    place = {"whole catalogue": (near >= own).sum(1) - 1, "added items alone": (near[:, first:] >= own).sum(1) - 1}
    return {
        "added": len(apart), "rows": len(goal), "k": k, "model": hit(None),
        **({} if prior is None else {"model + prior": hit(prior(asked))}),
        "text nearest-neighbour": {name: float((places < k).mean()) for name, places in place.items()},
        "chance": {"whole catalogue": k / line.log.n_items, "added items alone": min(1.0, k / len(apart))},
    }  # fmt: skip


def text_neighbours(line: Line, added: Added, histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Mean cosine of each history's vectors with each item's, (rows, items), over the blocks that the index reads."""
    read = [int(i) for i in line.index.fitted["blocks"]]
    scales = line.index.fitted["scales"]
    old = ItemVectors.load(line.vectors_stage.folder).only(read).joined(scales)
    new = new_vectors(line, added.items).only(read).joined(scales)
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
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
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
