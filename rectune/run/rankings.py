"""The ranked lists and answers of a run's models, each a stage of the run folder."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.language_model import LanguageModelRanker, Shelf
from rectune.decoding.ranking import Ranking, recall_and_ndcg, target_ranks
from rectune.log.split import Rows, evenly
from rectune.methods.validation import validation_metrics
from rectune.run.judged import HIDDEN
from rectune.run.line import Line
from rectune.runtime.processes import is_main, wait
from rectune.runtime.seeded import seeded
from rectune.tasks.asked_histories import history_split
from rectune.tasks.rows import TaskRows


def _rank_keys(line: Line) -> dict[str, Any]:
    from rectune.model.settings import settings_for_fingerprint

    settings = line.rank_settings
    return {
        "seed": line.seed, "template": line.rank_template.hash, "wording": settings.wording, "beams": settings.beams, "scores": settings.scores,
        "exact": settings.exact and settings.exact_nodes, "model": settings_for_fingerprint(line.model_settings), "max_length": settings.max_length,
        "batch_tokens": settings.batch_tokens, "task": line.ranked_call.fingerprint(line),
    }  # fmt: skip


def _answer_keys(line: Line) -> dict[str, Any]:
    settings = line.rank_settings
    return {**_rank_keys(line), "normaliser": settings.normaliser, "spellings": settings.spellings}


def ranked(
    line: Line, who: str, protocol: str, *, shuffled: int = 0, weight: float = 0.0
) -> tuple[Ranking, dict[str, Any]]:
    """The lists of a model for the test rows, and what ranking them took. `who`: 'untuned', 'tuned', or another form of the
    tuned model that stands in `line.loaded`.

    `shuffled` above 0 ranks only a sample of so many rows, each with its history in random order. `weight` above 0 adds
    the run's prior at every node.
    """
    rows, task = (line.split.test, line.task) if not shuffled else _shuffled_rows(line, shuffled)
    hidden = [line.split.seen(rows, i).tolist() for i in range(len(rows))] if protocol == HIDDEN else None
    model = line.base_stage if who == "untuned" else line.tuned
    keys = {**_rank_keys(line), "who": who, "hidden": protocol == HIDDEN, "shuffled": shuffled}
    needed = [model, line.base_stage, line.index_stage]
    prior = None
    if weight and line.prior is not None:
        keys["weight"], needed = weight, [*needed, line.prior.stage]
        prior = line.prior.of(line.split, rows, weight)

    def build(work: Path) -> None:
        started = time.perf_counter()
        shards = work / "shards"
        shards.mkdir(exist_ok=True)
        ranking = _loaded(line, who).rank(task, Shelf(hidden=hidden, prior=prior), shards=shards)
        wait()  # every process has read the shards
        if is_main():
            ranking.save(work / "ranking.parquet")
            shutil.rmtree(shards)
            (work / "measured.json").write_text(
                json.dumps({"seconds": time.perf_counter() - started, "rows": len(rows)})
            )

    stage = line.folder.stage(f"rank-{who}", keys, needed, build, resumes=True)
    return Ranking.load(stage.folder / "ranking.parquet"), json.loads((stage.folder / "measured.json").read_text())


def by_wording(line: Line, most: int) -> list[dict[str, Any]]:
    """NDCG@10 and Recall@10 (seen items hidden), or AUC, of the tuned model under each wording of its template, on the same
    sample of at most `most` test rows; empty where the template has one wording."""
    template = line.rank_template
    if template.wordings < 2 or most < 1:
        return []
    rows = shuffled_sample(line, most)
    hidden = [line.split.seen(rows, i).tolist() for i in range(len(rows))]
    task = line.task.take(evenly(len(line.task), most))

    def build(work: Path) -> None:
        found = []
        for wording in range(template.wordings):
            ranker = line.worded(_loaded(line, "tuned"), wording)
            if task.kind == "answer":
                found.append({"wording": wording, **validation_metrics(ranker, task)})
                continue
            place = target_ranks(ranker.rank(task, Shelf(hidden=hidden)), task.target.astype(np.int32))
            found.append({"wording": wording, **recall_and_ndcg(place, ranker.settings.beams)})
        if is_main():
            (work / "wordings.json").write_text(json.dumps(found))

    keys = {**(_answer_keys(line) if task.kind == "answer" else _rank_keys(line)), "rows": most}
    stage = line.folder.stage("wordings", keys, [line.tuned, line.base_stage, line.index_stage], build, resumes=True)
    each: list[dict[str, Any]] = json.loads((stage.folder / "wordings.json").read_text())
    return each


def prior_weight(line: Line) -> dict[str, Any]:
    """The weight of the run's prior beside the tuned model: {"weight", "validation"}, see `RunPrior.weighed`."""
    assert line.prior is not None
    return line.prior.weighed(_rank_keys(line), lambda: _loaded(line, "tuned"), line.tuned)


def answered(line: Line, who: str) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Probability of each answer for the test rows, shape (rows, answers), and what it took."""
    model = line.base_stage if who == "untuned" else line.tuned

    def build(work: Path) -> None:
        started = time.perf_counter()
        chances = _loaded(line, who).answer(line.task)
        if is_main():
            np.save(work / "answers.npy", chances)
            (work / "measured.json").write_text(
                json.dumps({"seconds": time.perf_counter() - started, "rows": len(line.task)})
            )

    keys = {**_answer_keys(line), "who": who}
    stage = line.folder.stage(f"answer-{who}", keys, [model, line.base_stage, line.index_stage], build, resumes=True)
    return np.load(stage.folder / "answers.npy"), json.loads((stage.folder / "measured.json").read_text())


def _loaded(line: Line, who: str) -> LanguageModelRanker:
    """The ranker, kept for the next ranking by the same model; only one model is held at a time."""
    if who not in line.loaded:
        line.loaded.clear()
        line.loaded[who] = line.ranker(who)
    return line.loaded[who]


def _shuffled_rows(line: Line, most: int) -> tuple[Rows, TaskRows]:
    """A sample of test rows whose histories are in random order, under the same row numbers."""
    rows = shuffled_sample(line, most)
    histories = []
    for i in range(len(rows)):
        history = line.split.history(rows, i).copy()
        seeded(line.seed, "shuffle", int(rows.row[i])).shuffle(history)
        histories.append(history.tolist())
    names = line.log.users
    users = [names[int(user)] for user in rows.user]
    task = line.task_rows(history_split(line.split, histories, users))
    return rows, TaskRows(rows.row, task.variables, task.kind, line.split.targets(rows), task.answers)


def shuffled_sample(line: Line, most: int) -> Rows:
    """The test rows that `ranked(..., shuffled=most)` ranks."""
    test = line.split.test
    return test.take(evenly(len(test), most))
