"""Items that come after a run: named by its fitted index, listed beside the others, and judged apart."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.catalogue import Catalogue
from rectune.indexing.item_index import Codes, ItemIndex, check_unique
from rectune.indexing.quantised import names_of_new
from rectune.log import UNTITLED, Log
from rectune.ranker import Shelf
from rectune.run_folder import fingerprint
from rectune.split import Split
from rectune.tasks import history_split
from rectune.vectors.item_vectors import ItemVectors, join

if TYPE_CHECKING:
    from rectune.line import Line

FOLDER = "added"
READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": pl.read_csv,
    ".jsonl": pl.read_ndjson,
    ".ndjson": pl.read_ndjson,
    ".parquet": pl.read_parquet,
}


@dataclass(frozen=True)
class Added:
    """Items that were added to a run: their columns, their codes (items, levels) in the run's vocabulary, and a hash."""

    items: pl.DataFrame
    codes: Codes
    mark: str

    def log(self, log: Log) -> Log:
        """The log with the new items behind its own; no code of an old item changes."""
        return dataclasses.replace(log, items=pl.concat([log.items, self.items.select(log.items.columns)]))

    def index(self, index: ItemIndex) -> ItemIndex:
        """The index with the new names behind its own."""
        return dataclasses.replace(index, codes=np.vstack([index.codes, self.codes]))


def added_to(folder: Path) -> Added | None:
    """What was added to a run folder, or None."""
    place = folder / FOLDER
    if not place.is_dir():
        return None
    items, codes = pl.read_parquet(place / "items.parquet"), np.load(place / "codes.npy")
    return Added(items, codes, fingerprint("added", [items.rows(), codes.tolist()], []))


def add_items(line: Line, file: Path) -> int:
    """Name the items of a file (`item_id`, `title` and other columns of the catalogue) and keep them in the run folder.

    Returns how many were added. Raises ValueError for an id that the catalogue already holds, and for an index that cannot
    name new items.
    """
    new = read_items(file, line.log)
    vectors = new_vectors(line, new)
    codes = names_of_new(line.index, vectors)
    check_unique(np.vstack([line.index.codes, codes]))
    before = added_to(line.folder.path)
    if before is not None:
        new, codes = pl.concat([before.items, new]), np.vstack([before.codes, codes])
    work, final = line.folder.path / f"{FOLDER}.partial", line.folder.path / FOLDER
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    new.write_parquet(work / "items.parquet")
    np.save(work / "codes.npy", codes)
    shutil.rmtree(final, ignore_errors=True)
    work.rename(final)
    return len(vectors.item_ids)


def read_items(file: Path, log: Log) -> pl.DataFrame:
    """Read new items with the columns of the log's items; texts that are missing are ''."""
    if file.suffix not in READERS:
        raise ValueError(f"{file.name}: items are read from {', '.join(READERS)} files.")
    table = READERS[file.suffix](file)
    if "item_id" not in table.columns:
        raise ValueError(f"{file.name}: no column `item_id`. It has: {', '.join(table.columns)}.")
    if not table.height:
        raise ValueError(f"{file.name}: the file holds no item.")
    empty = {name: pl.lit("").alias(name) for name in log.items.columns if name not in table.columns}
    table = table.with_columns(*empty.values()).select(
        pl.col(name).cast(pl.String).fill_null("") for name in log.items.columns
    )
    table = table.with_columns(pl.when(pl.col("title") == "").then(pl.lit(UNTITLED)).otherwise("title").alias("title"))
    ids = table["item_id"].to_list()
    known = set(log.items["item_id"].to_list())
    for seen, item_id in enumerate(ids):
        if item_id in known:
            raise ValueError(f"{file.name}: the catalogue already has the item `{item_id}`; only new items are added.")
        if not item_id or item_id in ids[:seen]:
            raise ValueError(
                f"{file.name}: item `{item_id}` is given twice." if item_id else f"{file.name}: an item has no id."
            )
    return table


def new_vectors(line: Line, items: pl.DataFrame) -> ItemVectors:
    """Vectors of new items from the sources of the run's recipe, those that need training events as zeros.

    An index that reads such a block cannot name new items; LETTER's reads only its content blocks.
    """
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
            parts.append(function(split, **arguments))
        else:
            parts.append(ItemVectors(ids, (np.zeros((len(ids), 1), dtype=np.float32),)))
    if not parts:
        return ItemVectors(ids, ())
    return join(parts)


def judge_added(line: Line, added: Added, file: Path, *, k: int = 10) -> dict[str, Any]:
    """Recall at `k` of targets that were added, for JSON lines {"items": [ID, …], "target": ID}.

    In the whole catalogue, and among the added items alone: the model, chance, and the text nearest-neighbour (mean cosine
    of the history's vectors with the item's).
    """
    ids = Catalogue(line.log)
    histories, targets = _rows(file, ids)
    first = line.log.n_items - added.items.height
    apart = np.arange(first, line.log.n_items)
    wrong = [target for target in targets if target < first]
    if wrong:
        raise ValueError(f"{file.name}: the target `{line.log.items['item_id'][wrong[0]]}` is not an added item.")
    asked = history_split(line.split, histories)
    rows, ranker = line.task_rows(asked), line.ranker("tuned")
    hidden = [sorted(set(history)) for history in histories]
    goal = np.array(targets)
    hit = {}
    for name, shelf in (
        ("whole catalogue", Shelf(hidden=hidden)),
        ("added items alone", Shelf(hidden=hidden, only=[apart.tolist()] * len(histories))),
    ):
        listed = ranker.rank(rows, shelf).items[:, :k]
        hit[name] = float((listed == goal[:, None]).any(1).mean())
    near = text_neighbours(line, added, histories)
    place = (near >= near[np.arange(len(goal)), goal - first][:, None]).sum(1) - 1
    return {
        "added": len(apart), "rows": len(goal), "k": k, "model": hit,
        "chance": {"whole catalogue": k / line.log.n_items, "added items alone": min(1.0, k / len(apart))},
        "text nearest-neighbour": {"added items alone": float((place < k).mean())},
    }  # fmt: skip


def text_neighbours(line: Line, added: Added, histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Mean cosine of each history's vectors with each added item's, (rows, added items), over the blocks the index reads."""
    read = [int(i) for i in line.index.fitted["blocks"]]
    scales = line.index.fitted["scales"]
    old = ItemVectors.load(line.vectors_stage.folder).only(read).joined(scales)
    new = new_vectors(line, added.items).only(read).joined(scales)
    every = np.vstack([old, new])
    every = every / np.maximum(np.linalg.norm(every, axis=1, keepdims=True), 1e-12)
    mean = np.stack([every[list(h)].mean(0) if len(h) else np.zeros(every.shape[1]) for h in histories])
    return np.asarray(mean @ every[len(old) :].T, dtype=np.float32)


def _rows(file: Path, ids: Catalogue) -> tuple[list[list[int]], list[int]]:
    histories, targets = [], []
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            named, target = [str(item) for item in row["items"]], str(row["target"])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f'{file.name}:{number}: a line must be {{"items": [ID, …], "target": ID}}.') from None
        histories.append(ids.codes(named))
        targets.append(ids.codes([target])[0])
    if not histories:
        raise ValueError(f"{file.name}: the file holds no row.")
    return histories, targets
