"""The parts of a bundle beside what transformers loads: written from a run, and read again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl

from rectune.bundle.bundle import PriorOf
from rectune.bundle.names import known, read_call_of, short_name, written_call
from rectune.decoding.language_model import RankSettings
from rectune.decoding.trie import FILE as TRIE
from rectune.prompts.encoder import Frame
from rectune.prompts.template import Template, load_template
from rectune.recipe.checking import check_keywords
from rectune.run.judged import as_json
from rectune.run.prior_box import weighted
from rectune.run.rankings import prior_weight
from rectune.run.run import Run
from rectune.tasks.asked_histories import outside_of
from rectune.tasks.task_calls import TaskCall

INDEX, PRIOR, VECTORS, REPORT, PAGE = "index", "prior", "vectors", "report.json", "report.html"
KEPT = (
    "wording",
    "beams",
    "k",
    "scores",
    "max_length",
    "batch_tokens",
    "exact",
    "exact_nodes",
    "normaliser",
    "spellings",
)
EXAMPLES = re.compile("<!-- examples -->.*?<!-- end of examples -->", re.DOTALL)  # of a report's page: users of the log
_PLACE = re.compile(r"path|folder|file|dir$|^items$|^log$")  # in keys of a recipe
_PATH = re.compile(r"(?<![\w.:/])/(?:[\w.@+-]+/)+([\w.@+-]+)")


# ------------------------------------------------------------------------------------------------------------ writing


def asked_of(run: Run) -> dict[str, Any]:
    """What the recipe asks of recommending, as plain data for `rectune.json`."""
    asked, task = run.asked, run.asked.ranked
    outside = outside_of(run.split)
    history = None if task.history is None else written_call("tasks.history", task.history)
    method = asked.trainings[-1].method
    return {
        "task": {**written_call("tasks", task.call), "history": history},
        "method": short_name("stages", method) or getattr(method, "__name__", "?"),
        "rank": {key: getattr(asked.rank, key) for key in KEPT},
        "frame": asdict(run.encoder.frame),
        "longest_history": outside.longest,
        "ratings": list(outside.ratings),
        "columns": run.log.items.columns,
        "index": short_name("index", asked.index.function) or asked.index.function.__name__,
        "vectors": [written_call("vectors", call) for call in asked.vectors],
        "seed": asked.seed,
    }


def write_parts(run: Run, plain: Run, folder: Path) -> dict[str, Any]:
    """Write index, trie, vectors, prior and report of a run into a folder; returns what `rectune.json` says of them. `plain`: the run without the items
    that were added to it, to whose catalogue its prior belongs."""
    for part in (INDEX, VECTORS):
        (folder / part).mkdir()
    run.index.save(folder / INDEX)
    if run.trie is not None:
        run.trie.save(folder / TRIE)
    if run.vectors is not None:
        run.vectors.save_fitted(folder / VECTORS)
        if run.asked.ranked.reads_vectors:
            run.vectors.save(folder / VECTORS)
    if not any((folder / VECTORS).iterdir()):
        (folder / VECTORS).rmdir()
    _write_report(run, folder)
    prior = run.asked.prior
    if prior is None or run.rows.kind != "item":
        return {"prior": None}
    place = plain.place("prior").folder
    (folder / PRIOR).mkdir()
    for file in sorted(place.iterdir()):
        if file.is_file() and not file.name.startswith((".", "_")) and file.name != "stage.json":
            shutil.copyfile(file, folder / PRIOR / file.name)
    name = short_name("rank.prior", prior.module) or prior.module.__name__
    return {"prior": {"call": name, "weight": prior_weight(plain)["weight"]}}


def _write_report(run: Run, folder: Path) -> None:
    """The report of the run, without what is of its users or of this machine; nothing where there is none."""
    file = run.folder.path / REPORT
    if not file.exists():
        return
    data = {**json.loads(file.read_text(encoding="utf-8")), "examples": []}
    data = without_places(data)
    data["settings"] = _without_files(data.get("settings"))
    (folder / REPORT).write_text(as_json(data), encoding="utf-8")
    page, cut = run.folder.path / PAGE, 0
    if page.exists():
        text, cut = EXAMPLES.subn("", page.read_text(encoding="utf-8"))
    if cut:
        (folder / PAGE).write_text(without_places(text), encoding="utf-8")


def _without_files(value: Any, key: str = "") -> Any:
    """Settings of a recipe; of what a key calls a file, a folder or a path only the last part."""
    if isinstance(value, dict):
        return {name: _without_files(one, str(name)) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_files(one, key) for one in value]
    return re.split(r"[/\\]", value)[-1] if isinstance(value, str) and _PLACE.search(key) else value


def without_places(value: Any) -> Any:
    """The same data; of a path of this machine only its last part."""
    if isinstance(value, dict):
        return {key: without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_places(one) for one in value]
    return _PATH.sub(r"\1", value) if isinstance(value, str) else value


# ------------------------------------------------------------------------------------------------------------ reading


def items_of(folder: Path, rows: Sequence[dict[str, Any]], columns: list[str]) -> pl.DataFrame:
    """The catalogue out of the lines of `items.jsonl`; columns that no prompt shows are ''."""
    ids = [row["item_id"] for row in rows]
    if not all(isinstance(item, str) for item in ids) or len(set(ids)) < len(ids):
        raise ValueError(f"{folder}: an item of `items.jsonl` has no id, or that of another.")
    texts = {name: [str(row.get(name, "")) for row in rows] for name in columns if name != "item_id"}
    return pl.DataFrame({"item_id": ids, **texts}, schema=dict.fromkeys(["item_id", *texts], pl.String))


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The lines of `items.jsonl`."""
    lines = (folder / "items.jsonl").read_text(encoding="utf-8").strip().split("\n")
    return [json.loads(line) for line in lines]


def page_in(folder: Path) -> Path | None:
    """The page of the report, where there is one."""
    file = folder / PAGE
    return file if file.exists() else None


def read_template(folder: Path, about: dict[str, Any]) -> Template:
    """The template, called as in the run. Raises ValueError where its text is another one than the model was tuned with."""
    template = replace(load_template(folder / "template.jinja"), name=about["rank"]["template"])
    if template.hash != about["rank"]["template_hash"]:
        raise ValueError(f"{folder}: its template is not the one that the model was tuned with.")
    return template


def read_frame(asked: dict[str, Any]) -> Frame:
    """What stands around every prompt."""
    return Frame(**check_keywords(Frame, asked["frame"], lambda key: f"`rectune.json`, `frame.{key}`", given=()))


def read_rank(asked: dict[str, Any], template: str) -> RankSettings:
    """How the run ranked."""
    return RankSettings(
        **check_keywords(
            RankSettings, {**asked["rank"], "template": template}, lambda key: f"`rectune.json`, `rank.{key}`", given=()
        )
    )


def read_task(asked: dict[str, Any], template: Template) -> TaskCall:
    """What a row asks."""
    written = dict(asked["task"])
    history = written.pop("history", None)
    return TaskCall(
        read_call_of("tasks", written, "`rectune.json`, `task`"),
        template,
        1.0,
        None if history is None else read_call_of("tasks.history", history, "`rectune.json`, `task.history`"),
    )


def read_prior(folder: Path, about: dict[str, Any]) -> tuple[PriorOf | None, float]:
    """The prior of a bundle with its weight, or None."""
    written = about.get("prior")
    if written is None:
        return None, 0.0
    module = known("rank.prior", written["call"], "`rectune.json`, `prior`")
    loaded, weight = (
        module.load(folder / PRIOR),
        float(written["weight"]),
    )  # now, so that what is wrong with it is told now
    return prior_of(lambda: loaded, weight), weight


def prior_of(load: Callable[[], Any], own: float) -> PriorOf:
    """A fitted prior as what a bundle holds; it is loaded when it is first needed."""
    held: list[Any] = []

    def of(split: Any, weight: float | None) -> Any:
        if not held:
            held.append(load())
        return weighted(held[0], split, split.test, own if weight is None else weight)

    return of
