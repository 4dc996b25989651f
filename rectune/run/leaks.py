"""What a run may have seen of its test: each way in which held-out events reach training is looked at by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from rectune.log.split import PARTS, Part, Rows, Split, evenly
from rectune.run.run import Run, open_run

TEXTS = 500  # of each task that are rendered
LEAST = 0.01  # of the test rows, below which like candidates are no leak
LIKE = 1 / 3  # of the other candidates, from which two lists are alike
ALIKE = 0.9  # rank correlation from which numbers follow an order
OUTSIDE = ("given", "from_file")  # callables that read what was made elsewhere, from nobody knows which events


@dataclass(frozen=True)
class Finding:
    """`kind`: 'leak', 'note' (known to the field, but a reader must know), 'unknown' (cannot be told), or 'clean'."""

    kind: Literal["leak", "note", "unknown", "clean"]
    what: str
    told: str


def leaks(folder: str | Path) -> list[Finding]:
    """Look for held-out events in what a finished run was trained on. Nothing is written.

    Looked at: targets among training events, targets and histories of training rows, the order of time inside each row, rows that
    stand in two parts, targets among the seen items, training events that are later than test targets, names that follow the log's order,
    what index and vectors were fitted on, what a run that goes on from another was tuned on before, candidates that tell the target, and titles of held-out targets in rendered training texts. Raises what `open_run` does.
    """
    run = open_run(folder)
    split = run.split
    return [
        *_events(split),
        *_times(split),
        *_twice(split),
        *_later(split),
        *_numbers(run),
        *_fitted(run),
        *_texts(run),
        *_earlier(run),
        *_offered(run),
    ]


def _events(split: Split) -> Iterator[Finding]:
    """Targets among what training reads, by their place in the log."""
    held = {part: set(split.part(part).target.tolist()) for part in PARTS if part != "train"}
    if split.log.cut is not None:
        return  # each row has a copy of its events: `_twice` looks at their items
    read = {
        "training events, which index, vectors and baselines read": split.train_events,
        "targets of training rows": split.train.target,
        "histories of training rows": _spanned(split.train),
    }
    for part, targets in held.items():
        for name, events in read.items():
            found = len(targets.intersection(np.unique(events).tolist()))
            what = f"{part} targets among {name}"
            if found:
                yield Finding("leak", what, f"{found:,} of {len(targets):,} {part} targets are there")
            else:
                yield Finding("clean", what, f"none of {len(targets):,}")


def _earlier(run: Run) -> Iterator[Finding]:
    """Test targets that were training events of the run that this one goes on from."""
    if run.asked.earlier is None:
        return
    what, leaked = "test targets among training events of the earlier run", run["before"][1]
    if leaked is None:
        yield Finding("unknown", what, "the run goes on from a bundle, which holds no events")
    elif leaked:
        yield Finding("leak", what, f"{leaked:,} of {len(run.split.test):,} test targets are there")
    else:
        yield Finding("clean", what, f"none of {len(run.split.test):,}")


def _offered(run: Run) -> Iterator[Finding]:
    """Candidates that tell the target: those of a test row are most like those of one training row, and the targets of the two are the same."""
    split = run.split
    train, test = split.candidates(split.train), split.candidates(split.test)
    if run.rows.candidates is None or train is None or test is None:
        return
    trained, asked = split.targets(split.train), split.targets(split.test)
    holders: dict[int, list[int]] = {}
    for row, some in enumerate(train.lists()):
        for item in some:
            holders.setdefault(item, []).append(row)
    alike = same = 0
    for some, target in zip(test.lists(), asked, strict=True):
        shared = Counter(row for item in some if item != target for row in holders.get(item, ()))
        most = max(shared.values(), default=0)
        if most > LIKE * (len(some) - 1):
            nearest = {int(trained[row]) for row, count in shared.items() if count == most}
            alike, same = alike + 1, same + (nearest == {int(target)})
    what = "candidates of test rows that tell the target"
    if same > max(alike / 2, LEAST * len(split.test)):
        yield Finding(
            "leak", what,
            f"{alike:,} of {len(split.test):,} test rows share more than a third of their candidates with one training row, the target not counted, and "
            f"the targets of {same:,} of these are the same",
        )  # fmt: skip
    else:
        yield Finding(
            "clean",
            what,
            f"{same:,} of {len(split.test):,} test rows have the target of a training row with like candidates",
        )


def _spanned(rows: Rows) -> NDArray[np.int64]:
    """The events of all histories, each once."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    edges = np.zeros(int(rows.stop.max()) + 1, dtype=np.int64)
    np.add.at(edges, rows.start, 1)
    np.add.at(edges, rows.stop, -1)
    return np.flatnonzero(np.cumsum(edges) > 0)


def _times(split: Split) -> Iterator[Finding]:
    """Events of a history that are later than its target."""
    times = split.log.times
    what = "histories that hold a later event than their target"
    if times is None:
        yield Finding("unknown", what, "the log has no times")
        return
    for part in PARTS:
        rows = split.part(part)
        wrong = sum(
            bool(rows.stop[i] > rows.start[i])
            and float(times[rows.start[i] : rows.stop[i]].max()) > float(times[rows.target[i]])
            for i in range(len(rows))
        )
        own = int(((rows.target >= rows.start) & (rows.target < rows.stop)).sum())
        if wrong or own:
            yield Finding("leak", f"{part}: {what}", f"{wrong + own:,} of {len(rows):,} rows")
        else:
            yield Finding("clean", f"{part}: {what}", f"none of {len(rows):,} rows")


def _twice(split: Split) -> Iterator[Finding]:
    """Rows of one user, one history and one target in two parts, and targets that were seen before."""
    keys = {part: _row_keys(split, part) for part in PARTS}
    for part in ("validation", "test"):
        same = len(keys[part] & keys["train"])
        what = f"{part} rows that are training rows, too (user, history and target)"
        yield Finding("leak" if same else "clean", what, f"{same:,} of {len(split.part(part)):,}")
    same = len(keys["test"] & keys["validation"])
    yield Finding("leak" if same else "clean", "test rows that are validation rows, too", f"{same:,}")
    test = split.test
    if seen := split.seen_before(test):
        told = f"{seen:,} of {len(test):,}: repeats, which cannot be hit while seen items are hidden"
        yield Finding("note", "test targets that their user touched before", told)


def _row_keys(split: Split, part: Part) -> set[tuple[Any, ...]]:
    rows = split.part(part)
    targets = split.targets(rows)
    return {
        (
            int(rows.user[i]),
            tuple(split.history(rows, i).tolist()),
            int(targets[i]),
            _opinion(split, int(rows.target[i])),
        )
        for i in range(len(rows))
    }


def _opinion(split: Split, event: int) -> float | None:
    ratings = split.log.ratings
    return None if ratings is None else float(ratings[event])


def _later(split: Split) -> Iterator[Finding]:
    """Training events of others that are later than a test target, as every split by users has them."""
    times = split.log.times
    if times is None or not len(split.test) or not len(split.train_events):
        return
    last = float(times[split.train_events].max())
    before = int((times[split.test.target] < last).sum())
    if before:
        told = f"{before:,} of {len(split.test):,} test targets are older than the newest training event: others' future is known, as in every split that is not by time"
        yield Finding("note", "training events later than test targets", told)
    else:
        yield Finding("clean", "training events later than test targets", "none: the split is one in time")


def _numbers(run: Run) -> Iterator[Finding]:
    """Names that are numbers in the order in which the log meets the items: they tell who bought what together."""
    split, index = run.split, run.index
    called = run.asked.index.function.__name__
    first = np.full(split.log.n_items, len(split.log.item_codes), dtype=np.int64)
    np.minimum.at(first, split.log.item_codes, np.arange(len(split.log.item_codes)))
    names = index.titles or tuple("".join(index.tokens(item)) for item in range(len(index)))
    what = "names that follow the order in which the log meets the items"
    if called == "sequential":
        yield Finding("note", what, "by design, and of training events alone (`index: sequential`)")
        return
    bare = [name.strip("<>_") for name in names]
    if called == "atomic" or not all(name.isdigit() for name in bare):
        yield Finding("clean", what, "names are no bare numbers")
        return
    alike = abs(float(spearmanr([int(name) for name in bare], first).statistic)) if len(bare) > 2 else 0.0
    if alike >= ALIKE:
        yield Finding(
            "leak",
            what,
            f"rank correlation {alike:.2f}: neighbours in number were met together, held-out events included. Shuffle the numbers",
        )
    else:
        yield Finding("clean", what, f"rank correlation {alike:.2f}")


def _texts(run: Run) -> Iterator[Finding]:
    """Titles of a user's held-out targets in the training texts about that user, as a writer or a task of one's own may put them
    there. A title may stand there by chance: other users' targets are looked for in the same texts."""
    split, what = run.split, "titles of held-out targets in training texts about the same user"
    titles = split.log.items["title"].to_list()
    held = {int(user): titles[target] for user, target in zip(split.test.user, split.targets(split.test), strict=True)}
    others = dict(zip(held, [*list(held.values())[1:], *list(held.values())[:1]], strict=True))
    looked, found, by_chance = 0, 0, 0
    for user, text in _rendered(run):
        if user not in held:
            continue
        taken = {titles[item] for item in split.trained(user)}
        for title in taken:
            text = text.replace(title, "")
        looked += 1
        found += held[user] in text and held[user] not in taken
        by_chance += others[user] in text and others[user] not in taken
    if found > 2 * by_chance + 3:
        yield Finding("leak", what, f"in {found:,} of {looked:,} texts; another user's target in {by_chance:,}")
    else:
        yield Finding("clean", what, f"in {found:,} of {looked:,} texts, another user's target in {by_chance:,}")


def _rendered(run: Run) -> Iterator[tuple[int, str]]:
    """User and text of a sample of the training examples that have a history; codes are left out."""
    user_of = dict(zip(run.split.train.row.tolist(), run.split.train.user.tolist(), strict=True))
    for spec in (spec for training in run.asked.trainings for spec in run.specs(training.tasks)):
        rows = spec.rows("train")
        for i in evenly(len(rows), TEXTS) if rows.history is not None else ():
            variables = rows.variables(int(i))
            segments = [*spec.template.prompt(0, variables), *spec.template.completion(0, variables)]
            yield user_of.get(int(rows.row[i]), -1), "".join(s.text for s in segments if s.kind != "codes")


def _fitted(run: Run) -> Iterator[Finding]:
    """What the index and the item vectors were made from."""
    calls = [("index", run.asked.index), *(("vectors", call) for call in run.asked.vectors if run.asked.reads_vectors)]
    for name, call in calls:
        what = f"{name} `{call.function.__name__}` fitted on held-out events"
        ours = call.function.__module__.startswith("rectune.")
        if ours and call.function.__name__ not in OUTSIDE:
            yield Finding("clean", what, "it reads item texts or training events alone")
        elif ours:
            yield Finding("unknown", what, "it was made elsewhere: ask its makers which events they used")
        else:
            yield Finding("unknown", what, "it is a callable of your own: let it read `split.train_sequences()` alone")
