"""One run from log to report, and a finished one reported again."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import rectune
from rectune.recipe.load import Recipe
from rectune.run.check import check
from rectune.run.line import AFTER
from rectune.run.report import report
from rectune.run.run import RESOLVED, Run, open_recipe, open_run
from rectune.run.start import check_start
from rectune.runtime.files import write_atomic
from rectune.runtime.near import near
from rectune.runtime.processes import is_main, wait


def train_one(recipe: Recipe, *, rebuild: Collection[str] = (), elsewhere: Collection[str] = ()) -> Path:
    """Run a recipe without a grid from log to report, or continue where it stopped. Returns the run folder.

    `rebuild`: names of boxes, of the line or such as the rankings that read it, that are built anew with all that reads them, or 'all'.
    `elsewhere`: further names that mean nothing here, of other cells of a grid.
    """
    run = open_recipe(recipe)
    names = {box.name for box in run.line} | run.folder.names() | set(elsewhere)
    known = names | {name.rstrip("0123456789") for name in names} | {"all"}
    for name in rebuild:
        if name not in known:
            raise ValueError(f"`--rebuild {name}`: this run has no such box.{near(name, known)}")
    check_start(run, rebuild=rebuild)
    run.folder.tell, run.folder.rebuild = partial(print, flush=True), frozenset(rebuild)
    with run.folder.lock():
        check(run)
        for box in run.line:
            run.place(box.name)
        _keep(run, reported=False)
        report(run)
        _keep(run, reported=True)
    return run.folder.path


def evaluate(
    folder: str | Path, overrides: Sequence[tuple[str, str]] = (), *, lists: Sequence[str | Path] = ()
) -> Path:
    """Rank and report again in a run folder, with other keys of `rank` or `eval`. Returns the folder.

    `lists`: files of lists that were made elsewhere, judged beside the run's own (see `read_lists`).

    Needs nothing but the folder: log, split, index and model are the ones that it holds. Raises ValueError for an
    override of another section.
    """
    for key, _ in overrides:
        if key.partition(".")[0] not in ("rank", "eval", "sasrec"):
            raise ValueError(
                f"`--{key}`: `rectune eval` changes only keys of `rank`, `eval` and `sasrec`. For others use `rectune train`."
            )
    run = open_run(folder, overrides)
    with run.folder.lock():
        check(run)
        report(run, lists)
        _keep(run, reported=True)
    return run.folder.path


def _keep(run: Run, *, reported: bool) -> None:
    """Write what later commands need into the folder: the resolved recipe, its templates, which stages it ended with, and, once its
    report is `reported`, which ones that used."""
    if is_main():
        folder = run.folder.path
        (folder / "templates").mkdir(exist_ok=True)
        for task in run.asked.every_task:
            write_atomic(folder / "templates" / task.template.name, task.template.source)
        write_atomic(folder / RESOLVED, run.asked.recipe.dump())
        about = {
            "recipe": run.asked.recipe.name,
            "rectune": rectune.__version__,
            "stages": {box.name: run.place(box.name).fingerprint for box in run.line if box.name not in AFTER},
            "reported": reported,
            "used": _used(run),
        }
        write_atomic(folder / "run.json", json.dumps(about))
    wait()


def _used(run: Run) -> list[str]:
    """The stages that were asked for now; of a kind that was not, those of the call before: what needs no ranking reads no trie."""
    mark = run.folder.path / "run.json"
    before = json.loads(mark.read_text()).get("used", []) if mark.exists() else []
    kinds = {name.rpartition("-")[0] for name in run.folder.asked}
    return sorted(run.folder.asked | {name for name in before if name.rpartition("-")[0] not in kinds})
