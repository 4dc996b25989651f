"""Finished runs beside each other: paired differences on the same test rows."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rectune.eval.intervals import Bootstrap
from rectune.eval.metrics.auc import auc
from rectune.eval.metrics.hits import hits_at
from rectune.eval.metrics.mae import mae
from rectune.eval.metrics.ndcg import ndcg
from rectune.eval.metrics.recall import recall
from rectune.eval.metrics.rmse import rmse
from rectune.eval.metrics.user_auc import mean_user_auc
from rectune.eval.page import text_table
from rectune.eval.ranking import MIXED, TUNED, UNTUNED, model_lists
from rectune.eval.sentences import interval, said, word_of

from rectune.run.folder import MARK
from rectune.run.judged import HIDDEN, SHOWN
from rectune.run.rankings import answered, prior_weight, ranked
from rectune.run.run import Run, open_run

MOST = 10  # places of a list that count
NOTHING = (None, 0)  # in the place of a second model where there is none


@dataclass(frozen=True)
class Metric:
    """A figure of what a model gave, or, with another model's, their difference: (value, low, high)."""

    name: str
    figure: Callable[[Any, Any], tuple[float, float, float]]
    lower_is_better: bool = False


def compare(
    folders: Sequence[str | Path], *, k: int | None = None, samples: int = 1000, seed: int = 0
) -> tuple[dict[str, Any], str]:
    """The models of finished runs on the same test rows, each against the first run's model of its kind: data for JSON, and a table.

    Differences are paired over users, with 95 % intervals of `samples` bootstrap samples. `k`: how many places of a list count; by default 10, or as many
    as all lists have. Nothing is ranked again where the runs' last
    reports asked for the same. Raises ValueError where the runs have other test rows, catalogues or kinds of task, for a `k` that lists do not have, and what `open_run` does.
    """
    if len(folders) < 2:
        raise ValueError("give at least two run folders.")
    names = _called(folders)
    with tempfile.TemporaryDirectory() as elsewhere:
        runs = {}
        for name, folder in zip(names, folders, strict=True):
            if not _is_reported(Path(folder)):
                raise ValueError(f"`{folder}` has no report. Run `rectune train` or `rectune eval` to its end first.")
            runs[name] = open_run(folder, elsewhere=Path(elsewhere) / str(len(runs)))
        first = runs[names[0]]
        order = {name: _in_order_of(first, run, names[0], name) for name, run in runs.items()}
        bootstrap = Bootstrap(first.split.test.user, samples=samples, seed=seed)
        tables = {}
        for title in {"item": (HIDDEN, SHOWN), "choice": (SHOWN,)}.get(first.rows.judged, ("answers",)):
            gave = {name: _gave(run, title, order[name]) for name, run in runs.items()}
            tables[title] = _table(gave, _metrics(first, gave, bootstrap, k))
    data = {"runs": dict(zip(names, map(str, folders), strict=True)), "rows": len(first.rows), "tables": tables}
    return data, _text(data)


def _is_reported(folder: Path) -> bool:
    mark = folder / MARK
    return mark.exists() and bool(json.loads(mark.read_text()).get("reported"))


def _called(folders: Sequence[str | Path]) -> list[str]:
    """Runs by the last parts of their folders, as many as tell them apart."""
    parts = [Path(folder).resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise ValueError("a run folder is named twice.")
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if max(Counter(names).values()) == 1:
            return names
    return ["/".join(part) for part in parts]


def _in_order_of(first: Run, run: Run, first_name: str, name: str) -> NDArray[np.int64]:
    """Where the rows of `first` stand among those of `run`. Raises ValueError where they are not the same rows."""
    if run.rows.judged != first.rows.judged or run.rows.values != first.rows.values:
        raise ValueError(f"`{name}` and `{first_name}` answer different kinds of questions.")
    ours, theirs = _keys(run), _keys(first)
    if set(ours) != set(theirs):
        strange = next(key for key in (*theirs, *ours) if (key in ours) != (key in theirs))
        apart = len(set(ours) ^ set(theirs))
        raise ValueError(
            f"`{name}` and `{first_name}` have other test rows, so their figures cannot be compared: {len(ours):,} and {len(theirs):,} rows, {apart:,} of them "
            f"in one of the two, such as user {strange[0]!r} with target {strange[1]!r}."
        )
    if run.rows.kind == "item":
        catalogues = [set(one.log.items["item_id"].to_list()) for one in (run, first)]
        if catalogues[0] != catalogues[1]:
            raise ValueError(
                f"`{name}` and `{first_name}` rank other catalogues ({len(catalogues[0]):,} and {len(catalogues[1]):,} items), so their figures "
                "cannot be compared."
            )
    order = np.array([ours[key] for key in theirs], dtype=np.int64)
    if run.rows.candidates is not None and first.rows.candidates is not None:
        ids = [one.log.items["item_id"].to_numpy() for one in (run, first)]
        offered = (run.rows.candidates.take(order).lists(), first.rows.candidates.lists())
        both = [[set(of[some].tolist()) for some in lists] for of, lists in zip(ids, offered, strict=True)]
        if both[0] != both[1]:
            raise ValueError(
                f"`{name}` and `{first_name}` choose among other candidates, so their figures cannot be compared."
            )
    return order


def _keys(run: Run) -> dict[tuple[Any, ...], int]:
    """User, target, how much went before and what is right of each test row -> its place."""
    split, rows = run.split, run.split.test
    ids, users = run.log.items["item_id"].to_list(), run.log.users.to_list()
    targets, before = split.targets(rows), rows.stop - rows.first
    right = run.rows.target if run.rows.kind == "answer" else np.zeros(len(rows), dtype=np.int64)
    keys = {
        (users[int(rows.user[i])], ids[int(targets[i])], int(before[i]), int(right[i])): i for i in range(len(rows))
    }
    if len(keys) < len(rows):
        raise ValueError(f"{run.folder.path}: two test rows are of one user and one target, and can't be told apart.")
    return keys


def _gave(run: Run, title: str, order: NDArray[np.int64]) -> dict[str, Any]:
    """What each model of a run gave: places of the targets, or chances of answers, in the order of the first run's rows."""
    if run.rows.kind == "answer":
        return {name: answered(run, who)[0][order] for who, name in (("untuned", UNTUNED), ("tuned", TUNED))}
    found = {name: ranked(run, who, title)[0] for who, name in (("untuned", UNTUNED), ("tuned", TUNED))}
    if run.asked.prior is not None:
        found[MIXED] = ranked(run, "tuned", title, weight=prior_weight(run)["weight"])[0]
    targets = run.split.targets(run.split.test)
    return {name: (model_lists(lists, targets).place[order], lists.items.shape[1]) for name, lists in found.items()}


def _metrics(first: Run, gave: dict[str, dict[str, Any]], bootstrap: Bootstrap, asked: int | None) -> list[Metric]:
    """The figures of a kind of task; of lists at the length that is `asked`, or that all of them have, at most `MOST`."""
    if asked is not None and first.rows.kind != "item":
        raise ValueError("`--k`: these runs list no items.")
    if first.rows.kind == "item":
        widths = {name: min(width for _, width in models.values()) for name, models in gave.items()}
        k = min([MOST, *widths.values()]) if asked is None else asked
        short = min(widths, key=lambda name: widths[name])
        if not 1 <= k <= widths[short]:
            raise ValueError(
                f"`--k`: got {k}, and the lists of `{short}` have {widths[short]} items. For longer ones: rectune eval RUN --rank.beams {max(k, 1)}"
            )
        one = np.ones(len(first.rows), dtype=np.int64)

        def mean(function: Callable[..., NDArray[np.float64]]) -> Callable[[Any, Any], tuple[float, float, float]]:
            def figure(found: Any, other: Any) -> tuple[float, float, float]:
                values = [function(hits_at(place, k), one, k) for place, _ in (found, other) if place is not None]
                return bootstrap.mean(values[0] - (values[1] if len(values) > 1 else 0.0))

            return figure

        return [Metric(f"recall@{k}", mean(recall)), Metric(f"ndcg@{k}", mean(ndcg))]
    target, users = first.rows.target.astype(np.int64), first.split.test.user

    def statistic(function: Callable[..., float]) -> Callable[[Any, Any], tuple[float, float, float]]:
        def figure(found: Any, other: Any) -> tuple[float, float, float]:
            return bootstrap.statistic(
                lambda rows: function(found, rows) - (0.0 if other is NOTHING else function(other, rows))
            )

        return figure

    if first.rows.values:
        values = np.array(first.rows.values)
        return [
            Metric("rmse", statistic(lambda p, rows: rmse(p[rows] @ values, values[target[rows]])), True),
            Metric("mae", statistic(lambda p, rows: mae(p[rows] @ values, values[target[rows]])), True),
        ]
    return [
        Metric("auc", statistic(lambda p, rows: auc(p[rows, -1], target[rows]))),
        Metric("user auc", statistic(lambda p, rows: mean_user_auc(p[rows, -1], target[rows], users[rows]))),
    ]


def _table(gave: dict[str, dict[str, Any]], metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """A row a model of a run: its figures, and what differs from the first run's."""
    first, *_ = gave.values()
    rows = []
    for name, models in gave.items():
        for model, found in models.items():
            row: dict[str, Any] = {"run": name, "model": model, "figures": {}, "differences": {}}
            for metric in metrics:
                row["figures"][metric.name] = metric.figure(found, NOTHING)
                if models is not first and model in first:
                    difference = metric.figure(found, first[model])
                    word = word_of(difference, lower_is_better=metric.lower_is_better)
                    row["differences"][metric.name] = {"difference": difference, "word": word}
            rows.append(row)
    return rows


def _text(data: dict[str, Any]) -> str:
    first = next(iter(data["runs"]))
    parts = []
    for title, rows in data["tables"].items():
        metrics = list(rows[0]["figures"])
        head = ["", *metrics, *(f"minus {first}, {metric}" for metric in metrics)]
        cells = []
        for row in rows:
            apart = [row["differences"].get(metric) for metric in metrics]
            cells.append(
                [
                    f"{row['run']}: {row['model']}",
                    *(interval(row["figures"][metric]) for metric in metrics),
                    *("" if one is None else interval(one["difference"], sign=True) for one in apart),
                ]
            )
        parts.append(text_table(f"{title}, {data['rows']:,} test rows", head, cells))
        parts += [
            said(f"{row['model']} of {row['run']}", one["word"], f"that of {first}", one["difference"], metric)
            for row in rows
            for metric, one in row["differences"].items()
            if one["word"] is not None and metric == metrics[-1 if title != "answers" else 0]
        ]
    return "\n".join(parts)
