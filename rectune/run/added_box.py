"""What was added to a run folder: items with their names, in a folder of their own that a file points to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from rectune.indexing.added import Added
from rectune.run.folder import RunFolder
from rectune.runtime.files import write_atomic

POINTER = "added.json"


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


def keep(folder: RunFolder, added: Added) -> Path:
    """Write added items into the run folder: a folder of their own, then a file that points to it. Returns that folder."""
    place = folder.path / f"added-{added.mark}"
    work = place.with_suffix(".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    added.items.write_parquet(work / "items.parquet")
    np.save(work / "codes.npy", added.codes)
    shutil.rmtree(place, ignore_errors=True)
    work.rename(place)
    about = {"folder": place.name, **{name: folder.pinned[name] for name in ("log", "index")}}
    write_atomic(folder.path / POINTER, json.dumps(about))
    for old in folder.path.glob("added-*"):
        if old != place:
            shutil.rmtree(old, ignore_errors=True)
    return place
