"""`rectune preview`: what the model will read and what it is trained to write."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectune.log.split import PARTS, evenly
from rectune.recipe.load import Recipe
from rectune.run.asked import ask
from rectune.run.check import check
from rectune.run.folder import BorrowedFolder, RunFolder
from rectune.run.run import Run
from rectune.run.start import check_preview
from rectune.tasks.examples import SAMPLE, Mixture, TaskSpec, length_statistics, warn_unknown

OPEN, CLOSE = "⟦", "⟧"


def preview(recipe: Recipe, *, examples: int = 5) -> str:
    """Return examples of each task with the trained tokens between ⟦ and ⟧, and token-length statistics.

    Nothing is kept: stages that the run folder already holds are used, the others are built in a temporary place.
    """
    if examples < 1:
        raise ValueError(f"`--examples` must be at least 1, got {examples}.")
    with tempfile.TemporaryDirectory() as place:
        run = _run(recipe, Path(place))
        check_preview(run)
        check(run)
        parts = [about(run)]
        shared = [training for training in run.asked.trainings if not training.own]
        for training in run.asked.trainings:
            if not training.own and training is not shared[0]:
                continue  # the same tasks
            config = training.config()
            mixture = Mixture(
                run.specs(training.tasks), "train", run.encoder, seed=run.asked.seed, max_length=config.max_length,
                loss_on_all=vars(config).get("completion_only_loss") is False,
            )  # fmt: skip
            if len(mixture) == 0:
                raise ValueError("there is no training example: no user has two training events.")
            warn_unknown(run.encoder, [spec for spec, _ in mixture.tasks])
            parts += _of_stage(mixture, examples)
    return "\n\n".join(parts)


def about(run: Run) -> str:
    """What the log and the split hold, in a few lines: counts, rows of each part, the span of time, and what was warned of."""
    log, split = run.log, run.split
    rows = ", ".join(f"{len(split.part(part)):,} {part}" for part in PARTS)
    lines = [f"{log.n_users:,} users, {log.n_items:,} items, {log.n_events:,} events{_span(log.times)}; rows: {rows}"]
    tied = split.notes.get("test_targets_tied_in_time")
    if tied:
        lines.append(
            f"{tied:,} of {len(split.test):,} test targets share their time with the event before: the order of the file decides"
        )
    return "\n".join([*lines, *(f"warning: {told}" for told in log.notes.get("warnings", []))])


def _span(times: NDArray[np.float64] | None) -> str:
    """From when to when, as dates where the numbers are seconds or milliseconds since 1970."""
    if times is None:
        return ", in the order of the rows"
    first, last = float(times.min()), float(times.max())
    scale = next((scale for scale in (1.0, 1e3) if first / scale > 1e8 and last / scale < 1e10), None)
    if scale is None:
        return f", time {first:g} to {last:g}"
    days = [datetime.fromtimestamp(moment / scale, UTC).date().isoformat() for moment in (first, last)]
    return f", {days[0]} to {days[1]}"


def _run(recipe: Recipe, elsewhere: Path) -> Run:
    """The run of a recipe that builds nothing in its own folder; where that belongs to something else it uses nothing of it either."""
    asked, own = ask(recipe), Path(recipe.settings["output_dir"])
    try:
        return Run(asked, BorrowedFolder(own, recipe.name, elsewhere))
    except ValueError:
        return Run(asked, RunFolder(elsewhere / "preview", recipe.name))


def _of_stage(mixture: Mixture, examples: int) -> list[str]:
    """For each task of a stage its token lengths and some examples."""
    parts = []
    for spec, rows in mixture.tasks:
        positions = _positions(mixture, spec)
        statistics = length_statistics(mixture, positions[evenly(len(positions), SAMPLE)].tolist())
        low, half, high, most = statistics["tokens"]
        parts.append(
            f"{spec.name}: {len(positions):,} examples an epoch out of {len(rows):,} rows, {spec.template.name}, "
            f"{spec.template.wordings} wordings, {mixture.encoder.form} form\n"
            f"  tokens of {statistics['measured']}: least {low}, median {half}, 95 % {high}, most {most}; limit {mixture.max_length}: "
            f"{statistics['examples_cut']} examples lose {statistics['history_entries_cut']} of their oldest history entries, "
            "no target is cut, no example dropped"
            + _frame(mixture)
            + "".join(f"\n  {name.replace('_', ' ')}: {value}" for name, value in rows.notes.items())
        )
        chosen = positions[evenly(len(positions), examples)].tolist()
        parts += [_marked(mixture, p) for p in chosen]
    return parts


def _frame(mixture: Mixture) -> str:
    frame = mixture.encoder.frame
    around = [repr(text) for text in (frame.before, frame.between) if text]
    said = f"\n  around every prompt: {' … '.join(around)}" if around else ""
    if frame.closed:
        said += f"\n  the chat template opens a block of reasoning, which is closed, empty, by {frame.closed!r}"
    return said


def _positions(mixture: Mixture, spec: TaskSpec) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([p for p in range(len(mixture)) if mixture.locate(p, 0)[0] is spec], dtype=np.int64)


def _marked(mixture: Mixture, position: int) -> str:
    """One example as text, trained tokens marked."""
    spec, rows, i = mixture.locate(position, 0)
    example = mixture.example(position, 0)
    features = mixture.features([position], 0)[0]
    parts = []
    for trained, begin, stop in _runs([label != -100 for label in features["labels"]]):
        text = _decoded(mixture.encoder.tokenizer, features["input_ids"], begin, stop)
        parts.append(f"{OPEN}{text}{CLOSE}" if trained else text)
    cut = f", {example.dropped} oldest entries cut" if example.dropped else ""
    return f"--- {spec.name}, row {int(rows.row[i])}, wording {example.wording}{cut}\n{''.join(parts)}"


def _runs(marks: Sequence[bool]) -> Iterator[tuple[bool, int, int]]:
    """Each run of equal marks: the mark, where it begins, where it stops."""
    begin = 0
    for mark, run in groupby(marks):
        stop = begin + len(list(run))
        yield mark, begin, stop
        begin = stop


def _decoded(tokenizer: Any, ids: list[int], begin: int, stop: int) -> str:
    """The text of `ids[begin:stop]`, decoded whole and after what stands before: a character may be several tokens, and a decoder
    drops the blank that a text begins with."""

    def text(some: list[int]) -> str:
        return str(tokenizer.decode(some, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    before, whole = text(ids[:begin]), text(ids[:stop])
    return whole[len(before) :] if whole.startswith(before) else text(ids[begin:stop])
