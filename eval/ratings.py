"""The judge of rating runs: RMSE and MAE beside means, biases and matrix factorisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rectune.eval.figures import rating_figures
from rectune.eval.intervals import Bootstrap
from rectune.eval.metrics.accuracy import accuracy
from rectune.eval.metrics.auc import auc
from rectune.eval.metrics.mae import mae
from rectune.eval.metrics.rmse import rmse
from rectune.eval.page import page, rating_text
from rectune.eval.sentences import earlier_lines, verdict
from rectune.eval.several import summarise

from rectune.baselines.rating_rows import rating_rows
from rectune.log.split import evenly
from rectune.run.judged import Evidence, Report, earlier_run, judge
from rectune.runtime.room import Room

UNTUNED, TUNED, LIKELIEST = "untuned model", "tuned model", "tuned model, most likely rating"
Floats = NDArray[np.float64]


@judge("rating", summarise=summarise)
def ratings(
    evidence: Evidence, *, like_above: float = 3.0, bootstrap_samples: int = 500, examples: int = 8, memory: float = 2.0
) -> Report:
    """Judge a run that answers with a rating.

    Rows: means, biases and matrix factorisation (see `rating_rows`), the untuned and the tuned model by their expected
    rating Σ p(answer) x answer, and the tuned model by its most likely one. RMSE and MAE with per-user bootstrap
    intervals; accuracy of the answer nearest to a prediction; AUC of the prediction for ratings above `like_above`.
    Predictions are cut to the ends of the scale. `memory`: GB (2^30 bytes) that the samples of users may take; where they take more, they
    lie in a file.
    """
    task, rows = evidence.task, evidence.split.test
    values = np.array(task.values)
    given = values[task.target]
    baselines = rating_rows(evidence.split, seed=evidence.seed)
    predicted = {row.name: row.predicted.clip(values[0], values[-1]) for row in baselines}
    predicted |= {UNTUNED: evidence.answers["untuned"] @ values, TUNED: evidence.answers["tuned"] @ values}
    predicted[LIKELIEST] = values[evidence.answers["tuned"].argmax(axis=1)]
    bootstrap = Bootstrap(rows.user, samples=bootstrap_samples, seed=evidence.seed, room=Room(memory))
    results = {
        "table": {name: _measure(p, given, values, like_above, bootstrap) for name, p in predicted.items()},
        "tuned_against": _differences(predicted, given, [row.name for row in baselines], bootstrap),
        "rows": len(rows), "users": len(np.unique(rows.user)), "mean_given": float(given.mean()),
        "rating_values": task.values, "like_above": like_above,
        "baseline_settings": {row.name: row.settings for row in baselines if row.settings},
        "split": evidence.split.notes, "log": evidence.split.log.facts(),
        "index_health": evidence.index.health, "audits": evidence.audits, **earlier_run(evidence),
    }  # fmt: skip
    data = {
        "recipe": evidence.recipe.name, "settings": evidence.recipe.settings, "results": results, "measured": evidence.measured,
        "training": evidence.training, "environment": evidence.environment,
        "said": [*earlier_lines(results), verdict(results["tuned_against"])],
        "examples": _in_words(evidence, predicted[TUNED], examples),
    }  # fmt: skip
    figures = rating_figures(data, predicted, given)
    return Report(data, page(data, figures, kind="ratings"), rating_text(data))


def _measure(p: Floats, given: Floats, values: Floats, like_above: float, bootstrap: Bootstrap) -> dict[str, Any]:
    return {
        "rmse": bootstrap.statistic(lambda rows: rmse(p[rows], given[rows])),
        "mae": bootstrap.statistic(lambda rows: mae(p[rows], given[rows])),
        "accuracy": accuracy(_nearest(p, values), _nearest(given, values)),
        "auc": auc(p, (given > like_above).astype(np.int64)),
    }


def _nearest(p: Floats, values: Floats) -> NDArray[np.int64]:
    """Position of the answer nearest to each prediction, the lower one in the middle of two."""
    return np.searchsorted((values[1:] + values[:-1]) / 2, p).astype(np.int64)


def _differences(
    predicted: dict[str, Floats], given: Floats, rivals: list[str], bootstrap: Bootstrap
) -> dict[str, Any]:
    """RMSE of the tuned model minus that of each other row, paired; the best baseline has the lowest RMSE."""
    tuned = predicted[TUNED]

    def difference(p: Floats) -> tuple[float, float, float]:
        return bootstrap.statistic(lambda rows: rmse(tuned[rows], given[rows]) - rmse(p[rows], given[rows]))

    return {
        "metric": "rmse",
        "lower_is_better": True,
        "best_baseline": min(rivals, key=lambda name: rmse(predicted[name], given)),
        "differences": {name: difference(p) for name, p in predicted.items() if name != TUNED},
    }


def _in_words(evidence: Evidence, expected: Floats, count: int) -> list[dict[str, Any]]:
    rows, task, out = evidence.split.test, evidence.task, []
    for i in evenly(len(rows), count):
        variables = task.variables(int(i))
        likeliest = int(evidence.answers["tuned"][i].argmax())
        out.append(
            {
                "user": evidence.split.log.users[int(rows.user[i])],
                "rated": [f"{item['title']} ({item['rating']})" for item in variables["history"]],
                "target": variables["target"]["title"],
                "given": variables["rating"],
                "expected": float(expected[i]),
                "likeliest": task.answers[likeliest]["rating"],
            }
        )
    return out
