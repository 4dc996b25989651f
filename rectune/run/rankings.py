"""The ranked lists and answers of a run's models, each a box that reads the line."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.language_model import LanguageModelRanker
from rectune.decoding.ranking import Ranking, recall_and_ndcg, target_ranks
from rectune.decoding.shelf import Shelf
from rectune.log.split import Rows, Split, evenly
from rectune.methods.language_model import worded
from rectune.methods.validation import hidden_while_choosing, validation_metrics
from rectune.model.settings import settings_for_fingerprint
from rectune.recipe.box import Box, Held
from rectune.run.asked import Asked
from rectune.run.candidates import candidates_box
from rectune.run.judged import HIDDEN, Before
from rectune.run.prior_box import weight_box, weighted
from rectune.run.run import Run
from rectune.runtime.processes import is_main, wait
from rectune.runtime.seeded import seeded
from rectune.tasks.asked_histories import outside_of
from rectune.tasks.rows import TaskRows

MEASURED = "measured.json"


def _rank_keys(asked: Asked, without: Path) -> dict[str, Any]:
    rank = asked.rank
    return {
        "seed": asked.seed, "template": asked.template.hash, "wording": rank.wording, "beams": rank.beams, "scores": rank.scores,
        "exact": rank.exact and rank.exact_nodes, "model": settings_for_fingerprint(asked.model), "max_length": rank.max_length,
        "batch_tokens": rank.batch_tokens, "task": asked.ranked.keys(without=without),
    }  # fmt: skip


def _answer_keys(asked: Asked, without: Path) -> dict[str, Any]:
    return {
        **_rank_keys(asked, without), "normaliser": asked.rank.normaliser, "spellings": asked.rank.spellings,
    }  # fmt: skip


def _needs(run: Run, who: str) -> tuple[str, ...]:
    """What a ranking by a model reads: the last training is what its model was tuned by."""
    chosen = ("vectors",) if run.asked.ranked.reads_vectors else ()
    tuned = () if who == "untuned" else (run.asked.trainings[-1].name,)
    return ("split", "index", "base", "trie", *chosen, *tuned)


def _made_by(run: Run) -> tuple[Any, ...]:
    return (LanguageModelRanker, run.asked.trainings[-1].method.load, *run.asked.ranked.made_by)


def ranked(
    run: Run, who: str, protocol: str, *, shuffled: int = 0, weight: float = 0.0, candidates: int = 0
) -> tuple[Ranking, dict[str, Any]]:
    """The lists of a model for the test rows, and what ranking them took. `who`: 'untuned', 'tuned', or another form of the
    tuned model that stands in `run.models`.

    `shuffled` above 0 ranks only a sample of so many rows, each with its history in random order. `weight` above 0 adds
    the run's prior at every node. `candidates` above 0 ranks the target and so many drawn items a row, and nothing else.
    """
    drawing = candidates_box(candidates, run.asked.seed)
    keys = {
        **_rank_keys(run.asked, run.folder.path), "who": who, "hidden": protocol == HIDDEN, "shuffled": shuffled,
        **({"weight": weight} if weight else {}), **({"candidates": candidates} if candidates else {}),
    }  # fmt: skip

    def build(held: Held, folder: Path) -> None:
        split = held["split"]
        rows, task = (split.test, run.rows) if not shuffled else shuffled_rows(run, shuffled)
        hidden = [split.seen(rows, i).tolist() for i in range(len(rows))] if protocol == HIDDEN else None
        prior = weighted(held["prior"], split, rows, weight) if weight else None
        only = [one.tolist() for one in run.load(drawing)] if candidates else None
        _rank(run, who, task, Shelf(hidden=hidden, only=only, prior=prior), folder)

    needs = (*_needs(run, who), "prior") if weight else _needs(run, who)
    found: tuple[Ranking, dict[str, Any]] = run.load(
        Box(
            f"rank-{who}", needs, lambda: keys, build,
            lambda held, folder: (Ranking.load(folder / "ranking.parquet"), _measured(folder)), _made_by(run), resumes=True,
        )
    )  # fmt: skip
    return found


def _rank(run: Run, who: str, task: TaskRows, shelf: Shelf, folder: Path) -> None:
    """Rank rows into a folder, in shards that a killed run leaves for the next one, and write down what it took."""
    started = time.perf_counter()
    shards = folder / "shards"
    shards.mkdir(exist_ok=True)
    ranking = run.models[who].rank(task, shelf, shards=shards)
    wait()  # every process has read the shards
    if is_main():
        ranking.save(folder / "ranking.parquet")
        shutil.rmtree(shards)
        _write_measured(folder, started, len(task))


def ranked_before(run: Run) -> Before | None:
    """The untuned and the tuned model on the test rows of the run that this one goes on from, over today's catalogue, seen items hidden; None where
    it goes on from none, or lists no items."""
    if run.asked.earlier is None or run.rows.judged != "item":
        return None
    rows = before_rows(run)
    if not rows.targets:
        return rows
    split = outside_of(run.split).split(rows.histories, rows.users, rows.targets)
    hidden = [sorted(set(history)) for history in rows.histories]

    def ranking(who: str) -> Ranking:
        def build(held: Held, folder: Path) -> None:
            _rank(run, who, run.rows_of_split(split), Shelf(hidden=hidden), folder)

        keys = {**_rank_keys(run.asked, run.folder.path), "who": who, "before": True}
        found: Ranking = run.load(
            Box(
                f"rank-{who}", (*_needs(run, who), "before"), lambda: keys, build,
                lambda held, folder: Ranking.load(folder / "ranking.parquet"), (*_made_by(run), before_rows), resumes=True,
            )
        )  # fmt: skip
        return found

    return replace(rows, rankings={who: ranking(who) for who in ("untuned", "tuned")})


def before_rows(run: Run) -> Before:
    """The earlier run's test rows in today's codes: without those whose target has left the catalogue or was trained since."""
    (frame, leaked), split = run["before"], run.split
    code = {item: i for i, item in enumerate(run.log.items["item_id"].to_list())}
    user_code = {user: i for i, user in enumerate(run.log.users.to_list())}
    histories, targets, users, gone, trained = [], [], [], 0, 0
    for user, items, target in frame.iter_rows():
        if target not in code:
            gone += 1
        elif user in user_code and code[target] in split.trained(user_code[user]):
            trained += 1
        else:
            histories.append([code[item] for item in items if item in code])
            targets.append(code[target])
            users.append(user)
    return Before(histories, targets, users, gone, trained, leaked)


def answered(run: Run, who: str) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Probability of each answer for the test rows, shape (rows, answers), and what it took."""
    keys = {**_answer_keys(run.asked, run.folder.path), "who": who}

    def build(held: Held, folder: Path) -> None:
        started = time.perf_counter()
        chances = run.models[who].answer(run.rows)
        if is_main():
            np.save(folder / "answers.npy", chances)
            _write_measured(folder, started, len(run.rows))

    found: tuple[NDArray[np.float64], dict[str, Any]] = run.load(
        Box(
            f"answer-{who}", _needs(run, who), lambda: keys, build,
            lambda held, folder: (np.load(folder / "answers.npy"), _measured(folder)), _made_by(run), resumes=True,
        )
    )  # fmt: skip
    return found


def wrote(run: Run, who: str, most: int, tokens: int) -> tuple[list[str], dict[str, Any]]:
    """What a model writes freely after the prompts of at most `most` test rows, at most `tokens` tokens each, and what it took. Nothing where
    its ranker writes no text."""
    keys = {**_rank_keys(run.asked, run.folder.path), "who": who, "rows": most, "tokens": tokens}

    def build(held: Held, folder: Path) -> None:
        started, model = time.perf_counter(), run.models[who]
        rows = run.rows.take(evenly(len(run.rows), most))
        texts = model.write(rows, most=tokens) if isinstance(model, LanguageModelRanker) else []
        if is_main():
            (folder / "written.json").write_text(json.dumps(texts))
            _write_measured(folder, started, len(rows))

    found: tuple[list[str], dict[str, Any]] = run.load(
        Box(
            f"written-{who}", _needs(run, who), lambda: keys, build,
            lambda held, folder: (json.loads((folder / "written.json").read_text()), _measured(folder)), _made_by(run), resumes=True,
        )
    )  # fmt: skip
    return found


def by_wording(run: Run, most: int) -> list[dict[str, Any]]:
    """NDCG@10 and Recall@10 (seen items hidden), or AUC, of the tuned model under each wording of its template, on the same
    sample of at most `most` test rows; empty where the template has one wording."""
    asked = run.asked
    if asked.template.wordings < 2 or most < 1:
        return []
    answers = run.rows.kind == "answer"
    keys = {**(_answer_keys if answers else _rank_keys)(asked, run.folder.path), "rows": most}

    def build(held: Held, folder: Path) -> None:
        rows = sample(held["split"], most)
        task = run.rows.take(evenly(len(run.rows), most))
        hidden = hidden_while_choosing(task, held["split"], rows)
        tuned, found = run.models["tuned"], []
        for wording in range(asked.template.wordings if isinstance(tuned, LanguageModelRanker) else 0):
            ranker = worded(run.loading, tuned, wording)  # type: ignore[arg-type]
            if answers:
                found.append({"wording": wording, **validation_metrics(ranker, task, Shelf())})
                continue
            place = target_ranks(ranker.rank(task, Shelf(hidden=hidden)), task.target.astype(np.int32))
            found.append({"wording": wording, **recall_and_ndcg(place, asked.rank.beams)})
        if is_main():
            (folder / "wordings.json").write_text(json.dumps(found))

    found: list[dict[str, Any]] = run.load(
        Box(
            "wordings", _needs(run, "tuned"), lambda: keys, build,
            lambda held, folder: json.loads((folder / "wordings.json").read_text()), _made_by(run), resumes=True,
        )
    )  # fmt: skip
    return found


def prior_weight(run: Run) -> dict[str, Any]:
    """The weight of the run's prior beside the tuned model: {"weight", "validation"}, see `weight_box`. One weight is taken as it is.

    Raises ValueError where there are several and no validation rows.
    """
    prior = run.asked.prior
    assert prior is not None
    if len(prior.weights) == 1:
        return {"weight": prior.weights[0], "validation": []}
    if not len(run.split.validation):
        raise ValueError(
            "`rank.prior.weight`: this split has no validation rows to choose a weight on. Give one number."
        )
    keys = _rank_keys(run.asked, run.folder.path)
    return run.load(weight_box(run.asked, keys, _needs(run, "tuned"), run.models))  # type: ignore[no-any-return]


def shuffled_rows(run: Run, most: int) -> tuple[Rows, TaskRows]:
    """A sample of test rows whose histories are in random order, under the same row numbers."""
    split = run.split
    rows = sample(split, most)
    histories = []
    for i in range(len(rows)):
        history = split.history(rows, i).copy()
        seeded(run.asked.seed, "shuffle", int(rows.row[i])).shuffle(history)
        histories.append(history.tolist())
    users = [run.log.users[int(user)] for user in rows.user]
    task = run.rows_of_split(outside_of(split).split(histories, users))
    return rows, replace(task, row=rows.row, target=split.targets(rows))


def sample(split: Split, most: int) -> Rows:
    """The test rows that `ranked(..., shuffled=most)` ranks."""
    return split.test.take(evenly(len(split.test), most))


def _write_measured(folder: Path, started: float, rows: int) -> None:
    (folder / MEASURED).write_text(json.dumps({"seconds": time.perf_counter() - started, "rows": rows}))


def _measured(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MEASURED).read_text())
    return found
