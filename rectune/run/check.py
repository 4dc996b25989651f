"""What can only be refused with data: checked before the base model is loaded."""

from __future__ import annotations

import warnings

import numpy as np

from rectune.log.split import evenly
from rectune.methods.validation import list_metrics
from rectune.run.run import Run
from rectune.tasks.examples import TaskSpec, fit_prompt
from rectune.tasks.rows import TaskRows

PROMPTS = 20  # test rows whose prompts are tried


def check(run: Run) -> None:
    """Raise ValueError where what is asked does not fit the data: an evaluator of another kind of task, lists longer than the search or
    the catalogue, a checkpoint chosen by what no evaluation gives, answers that are all the same."""
    asked, rows = run.asked, run.rows
    kind, told = rows.kind, rows.judged
    if asked.judge.judges not in (None, told):
        raise ValueError(
            f"{asked.where('eval.call')}: `{asked.recipe.settings['eval']['call']}` judges tasks of the kind `{asked.judge.judges}`, but "
            f"`{asked.ranked.name}` is of the kind `{told}`."
        )
    if asked.prior is not None and kind != "item":
        raise ValueError(
            f"{asked.where('rank.prior')}: the ranked task lists no items, so a prior over items has no place."
        )
    if not run.folder.pinned:
        given = {
            **dict.fromkeys(("item", "choice"), list_metrics(asked.list_width)),
            "answer": ["auc"],
            "rating": ["rmse"],
        }
        _check_metrics(run, given.get(told, []))
    if kind == "answer" and not run.folder.pinned:
        _check_answers(run)
    if kind == "item":
        for k in asked.judged_by.get("k") or [asked.rank.k]:
            check_k(run, k)
    if rows.candidates is not None and len(rows) and (most := int(rows.candidates.lengths.max())) > asked.rank.beams:
        raise ValueError(
            f"{asked.where('rank.beams')}: rows offer up to {most} candidates, and {asked.rank.beams} beams list so many at most. Raise it to {most}."
        )
    if not run.folder.pinned:
        _check_rows(run)
    if not run.folder.pinned and asked.rank.max_length is not None:
        _check_prompts(run, asked.rank.max_length)


def _check_rows(run: Run) -> None:
    """Raise ValueError for training rows that a method has no use for, or whose candidates leave no room: a later stage must not find out after hours of
    the first."""
    for training in run.asked.trainings:
        config, fits = training.config(), getattr(training.method, "check_rows", None)
        if fits is None and run.rows.candidates is None:
            continue  # rows may have to be written first
        tasks = [(spec, spec.rows("train")) for spec in run.specs(training.tasks)]
        try:
            if fits is not None:
                fits(config, tasks)
            for spec, rows in tasks:
                _check_room(run, spec, rows, vars(config).get("max_length"))
        except ValueError as error:
            raise ValueError(f"{run.asked.where(f'stages.{training.number}')}: {error}") from None


def _check_room(run: Run, spec: TaskSpec, rows: TaskRows, most: int | None) -> None:
    """Raise ValueError where candidates, of the rows that list the most, do not fit beside their target in any wording."""
    for i in _longest(rows) if most is not None else []:
        variables, what = rows.variables(i), f"task `{spec.name}`, row {int(rows.row[i])}"
        for wording in range(spec.template.wordings):
            target = run.encoder.completion_ids(spec.template.completion(wording, variables), end=spec.template.end)
            fit_prompt(run.encoder, spec.template, wording, variables, room=int(most or 0) - len(target), what=what)


def check_k(run: Run, k: int) -> None:
    """Raise ValueError for a list length that the search or the catalogue cannot give."""
    if not 1 <= k <= run.asked.rank.beams:
        raise ValueError(f"k = {k}, but it must be from 1 to `rank.beams` = {run.asked.rank.beams}.")
    if run.rows.kind == "item" and k > run.log.n_items:
        raise ValueError(f"k = {k}, but the catalogue holds only {run.log.n_items} items.")


def _check_prompts(run: Run, room: int) -> None:
    """Raise ValueError where a test row, of some of them, has no prompt of `rank.max_length` tokens."""
    rows, template, wording = run.rows, run.asked.template, run.asked.rank.wording
    for i in {*evenly(len(rows), PROMPTS).tolist(), *_longest(rows)}:
        what = f"{run.asked.where('rank.max_length')}: test row {int(rows.row[int(i)])}"
        fit_prompt(run.encoder, template, wording, rows.variables(int(i)), room=room, what=what)


def _longest(rows: TaskRows) -> list[int]:
    """Rows that list the most in their candidates, which no prompt leaves out."""
    if rows.candidates is None:
        return []
    size = [sum(len(str(view["name"])) for view in rows.variables(i)["candidates"]) for i in range(len(rows))]
    return [int(i) for i in np.argsort(size, kind="stable")[-PROMPTS:]]


def _check_metrics(run: Run, ranked: list[str]) -> None:
    known = [f"eval_{name}" for name in ("loss", *ranked)]
    for training in run.asked.trainings:
        config = vars(training.config())
        name = config.get("metric_for_best_model") if config.get("load_best_model_at_end") else None
        if name is not None and f"eval_{name.removeprefix('eval_')}" not in known:
            raise ValueError(
                f"{run.asked.where(f'stages.{training.number}.metric_for_best_model')}: no evaluation of this run gives `{name}`; it can be "
                f"{', '.join(known)}."
            )


def _check_answers(run: Run) -> None:
    train, validation = run.rows_of("train"), run.rows_of("validation")
    if len(np.unique(train.target)) < 2:
        raise ValueError(
            f"all {len(train)} training rows have the same answer, so there is nothing to tell apart. Raise `split.shots`, "
            "use another `seed`, or another threshold."
        )
    if len(validation) and len(np.unique(validation.target)) < 2:
        warnings.warn(
            f"all {len(validation)} validation rows have the same answer: eval_auc is NaN and chooses nothing. Use a longer "
            "validation part, or `metric_for_best_model: eval_loss`.",
            stacklevel=2,
        )
