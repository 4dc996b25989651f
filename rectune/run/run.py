"""The straight line: recipe -> log -> split -> index -> examples -> stages -> ranked lists -> report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import rectune
from rectune.decoding.language_model import Shelf
from rectune.log.catalogue import Catalogue
from rectune.log.log import Log
from rectune.log.split import Split
from rectune.recipe.load import Recipe, load_recipe
from rectune.run.added_box import added_to, judge_added, keep, name_items, read_rows
from rectune.run.line import Line
from rectune.run.rankings import prior_weight
from rectune.run.report import report
from rectune.runtime.files import write_atomic
from rectune.runtime.processes import is_main, wait
from rectune.tasks.asked_histories import history_split

RESOLVED = "recipe.yaml"


def train_one(recipe: Recipe) -> Path:
    """Run a recipe without a grid from log to report, or continue where it stopped. Returns the run folder."""
    line = Line(recipe)
    line.folder.tell = partial(print, flush=True)
    with line.folder.lock():
        line.check()
        line.check_lists()
        line.tuned  # noqa: B018  builds everything up to the tuned model
        _keep(line, reported=False)
        report(line)
        _keep(line, reported=True)
    return line.folder.path


def evaluate(folder: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> Path:
    """Rank and report again in a run folder, with other keys of `rank` or `eval`. Returns the folder.

    Needs nothing but the folder: log, split, index and model are the ones that it holds. Raises ValueError for an
    override of another section.
    """
    for key, _ in overrides:
        if key.partition(".")[0] not in ("rank", "eval"):
            raise ValueError(
                f"`--{key}`: `rectune eval` changes only keys of `rank` and `eval`. For others use `rectune train`."
            )
    line = open_run(folder, overrides)
    with line.folder.lock():
        line.check()
        line.check_lists()
        report(line)
        _keep(line, reported=True)
    return line.folder.path


def open_run(folder: str | Path, overrides: Sequence[tuple[str, str]] = (), *, added: bool = False) -> Line:
    """Open a finished run folder; its stages and templates are used as they are. Raises FileNotFoundError when it is none.

    `added`: with the items that `add_to_index` added.
    """
    path = Path(folder).resolve()
    about = json.loads((path / "run.json").read_text()) if (path / "run.json").exists() else {}
    if not (path / RESOLVED).exists() or "stages" not in about:
        raise FileNotFoundError(
            f"`{folder}` is not a finished run folder (it holds no {RESOLVED}). Run `rectune train RECIPE` first."
        )
    loaded = load_recipe(path / RESOLVED, [*overrides, ("output_dir", json.dumps(str(path)))])
    line = Line(Recipe(about["recipe"], loaded.settings, loaded.lines, path / "templates"))
    line.folder.pinned = about["stages"]
    line.added = added_to(path, about["stages"]) if added else None
    return line


def add_to_index(folder: str | Path, items: str | Path, rows: str | Path | None = None) -> dict[str, Any]:
    """Give new items names from the index of a run, without tuning; from then on `recommend` lists them too.

    `items`: a CSV, JSON-lines or Parquet file with `item_id`, `title` and the catalogue's other columns. `rows`: JSON lines
    {"items": [ID, …], "target": ID} by which the added items are judged. Returns {"added": how many, "report": or None}.
    Raises ValueError for an index that names no new items, a known or repeated id, an item without text.
    """
    line = open_run(folder, added=True)
    with line.folder.lock():
        added = name_items(line, Path(items))
        judged = read_rows(Path(rows), added.log(Log.load(line.data_stage.folder)), added) if rows is not None else None
        place = keep(line, added)
        found = None
        if judged is not None:
            now = open_run(folder, added=True)
            found = judge_added(now, added, judged, prior=_prior(now, folder))
            write_atomic(place / "report.json", json.dumps(found, indent=1))
    return {"added": added.items.height - (line.added.items.height if line.added else 0), "report": found}


def recommend(
    folder: str | Path,
    histories: Sequence[Sequence[str]],
    *,
    k: int | None = None,
    by: Literal["item_id", "title"] = "item_id",
    hide_seen: bool = True,
    allow: Sequence[str] | None = None,
    deny: Sequence[str] = (),
    candidates: Sequence[Sequence[str]] | None = None,
    users: Sequence[str] | None = None,
) -> list[list[dict[str, Any]]]:
    """Recommend after each history (oldest first), given by item ids or, with `by='title'`, by titles.

    `allow` and `deny`: ids of items that alone may, or must not, be listed (stock, age, region); ids that the catalogue
    does not hold count for nothing, with a warning. `candidates`: for each history the ids that are to be ranked. `users`:
    whose history each is, for a run whose prompts have user tokens.
    Returns for each history a list of {'item_id', 'title', 'score'}, best first, shorter than `k` where fewer items may
    be listed. Scores don't depend on what may be listed. Raises ValueError for an unknown item of a history or of the
    candidates (with near misses), for a `k` above `rank.beams` or the catalogue, or when no item may be listed.
    """
    line = open_run(folder, added=True)
    if line.task.kind != "item":
        raise ValueError(
            f"{folder}: this run answers about one item (Yes/No, a rating); it has no catalogue ranking to recommend from."
        )
    k = line.rank_settings.k if k is None else k
    line.check_k(k)
    ids = Catalogue(line.log)
    named = ids if by == "item_id" else Catalogue(line.log, by)
    codes = [named.codes(history) for history in histories]
    for what, given in (("candidates for", candidates), ("users for", users)):
        if given is not None and len(given) != len(histories):
            raise ValueError(f"there are {len(histories)} histories, but {what} {len(given)}.")
    shelf = Shelf(
        allowed=ids.allowed(allow, deny),
        hidden=[sorted(set(history)) if hide_seen else [] for history in codes],
        only=None if candidates is None else [ids.codes(some) for some in candidates],
    )
    asked = history_split(line.split, codes, users)
    prior = _prior(line, folder)
    if prior is not None:
        shelf = replace(shelf, prior=prior(asked))
    ranking = line.ranker("tuned").rank(line.task_rows(asked), shelf)
    items = line.log.items
    return [
        [
            {"item_id": items["item_id"][int(item)], "title": items["title"][int(item)], "score": float(score)}
            for item, score in zip(row[:k], scores[:k], strict=True)
            if item >= 0
        ]
        for row, scores in zip(ranking.items, ranking.scores, strict=True)
    ]


def _prior(line: Line, folder: str | Path) -> Callable[[Split], Any] | None:
    """What `Shelf.prior` takes for the test rows of a split, or None where the run has no prior beside its model."""
    if line.prior is None:
        return None
    plain = line if line.added is None else open_run(folder)  # a prior belongs to the catalogue of the tuning
    assert plain.prior is not None
    weight = prior_weight(plain)["weight"]
    return lambda split: plain.prior.of(split, split.test, weight)  # type: ignore[union-attr]


def _keep(line: Line, *, reported: bool) -> None:
    """Write what later commands need into the folder: the resolved recipe, its templates, which stages it ended with, and, once its
    report is `reported`, which ones that used."""
    if is_main():
        folder = line.folder.path
        (folder / "templates").mkdir(exist_ok=True)
        for template in line.templates:
            write_atomic(folder / "templates" / template.name, template.source)
        write_atomic(folder / RESOLVED, line.recipe.dump())
        stages = {stage.folder.name.rpartition("-")[0]: stage.fingerprint for stage in line.built()}
        about = {
            "recipe": line.recipe.name,
            "rectune": rectune.__version__,
            "stages": stages,
            "reported": reported,
            "used": _used(line),
        }
        write_atomic(folder / "run.json", json.dumps(about))
    wait()


def _used(line: Line) -> list[str]:
    """The stages that were asked for now; of a kind that was not, those of the call before: what needs no ranking reads no trie."""
    mark = line.folder.path / "run.json"
    before = json.loads(mark.read_text()).get("used", []) if mark.exists() else []
    kinds = {name.rpartition("-")[0] for name in line.folder.asked}
    return sorted(line.folder.asked | {name for name in before if name.rpartition("-")[0] not in kinds})
