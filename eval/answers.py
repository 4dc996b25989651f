"""The judge of Yes/No runs: AUC and calibration beside rules that read no title."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rectune.eval.figures import answer_figures
from rectune.eval.intervals import Bootstrap
from rectune.eval.metrics.auc import auc
from rectune.eval.metrics.calibration_error import calibration_error
from rectune.eval.metrics.log_loss import log_loss
from rectune.eval.metrics.user_auc import mean_user_auc
from rectune.eval.page import answer_text, page
from rectune.eval.sentences import earlier_lines, verdict
from rectune.eval.several import over_wordings, summarise

from rectune.baselines.likes import both, item_like_rate, logistic, share_of_likes
from rectune.log.split import evenly
from rectune.run.judged import Evidence, Report, earlier_run, judge
from rectune.runtime.room import Room

UNTUNED, TUNED = "untuned model", "tuned model"
SHARE, RATE, BOTH = "share of likes in the history", "item's like-rate", "share and like-rate"
FITTED = "logistic regression on both"


@judge("answer", summarise=summarise)
def answers(
    evidence: Evidence, *, bootstrap_samples: int = 500, wording_rows: int = 0, examples: int = 8, memory: float = 2.0
) -> Report:
    """Judge a run that answers Yes or No about one item.

    Rows: the share of likes in the history, the item's like-rate among training targets, their mean, a logistic regression
    on them, the untuned and the tuned model. AUC over all rows and within users, both with an interval that resamples
    users, log loss and calibration error. With `wording_rows` the tuned model answers so many test rows under each wording. `memory`: GB (2^30
    bytes) that the samples of users may take; where they take more, they lie in a file.
    """
    split, rows = evidence.split, evidence.split.test
    liked = evidence.task.target.astype(np.int64)
    likes = _likes(evidence)
    share, rate = share_of_likes(split, rows, likes), item_like_rate(split, rows, likes)
    chances = {SHARE: share, RATE: rate, BOTH: both(share, rate), FITTED: logistic(split, rows, likes)}
    chances |= {UNTUNED: evidence.answers["untuned"][:, -1], TUNED: evidence.answers["tuned"][:, -1]}
    bootstrap = Bootstrap(rows.user, samples=bootstrap_samples, seed=evidence.seed, room=Room(memory))
    results = {
        "table": {name: _measure(p, liked, rows.user, bootstrap) for name, p in chances.items()},
        "tuned_against": _differences("auc", lambda p, r: auc(p[r], liked[r]), chances, bootstrap),
        "tuned_against_within_users": _differences(
            "user auc", lambda p, r: mean_user_auc(p[r], liked[r], rows.user[r]), chances, bootstrap
        ),
        "wordings": over_wordings(evidence.wordings),
        "rows": len(rows),
        "users": len(np.unique(rows.user)),
        "share_liked": float(liked.mean()),
        "split": split.notes,
        "log": split.log.facts(),
        "index_health": evidence.index.health,
        **earlier_run(evidence),
        "audits": evidence.audits,
    }
    data = {
        "recipe": evidence.recipe.name, "settings": evidence.recipe.settings, "results": results, "measured": evidence.measured,
        "training": evidence.training, "environment": evidence.environment,
        "said": [*earlier_lines(results), verdict(results["tuned_against"]), f"Within users: {verdict(results['tuned_against_within_users'])}"],
        "examples": _in_words(evidence, examples),
    }  # fmt: skip
    return Report(data, page(data, answer_figures(data, chances, liked), kind="answers"), answer_text(data))


def _likes(evidence: Evidence) -> NDArray[np.bool_]:
    """Whether each event is a like, by the threshold of the ranked task."""
    ratings = evidence.split.log.ratings
    assert ratings is not None
    return np.asarray(ratings > evidence.task_section.get("like_above", 3.0))


def _measure(
    p: NDArray[np.float64], liked: NDArray[np.int64], user: NDArray[np.int64], bootstrap: Bootstrap
) -> dict[str, Any]:
    return {
        "auc": bootstrap.statistic(lambda rows: auc(p[rows], liked[rows])),
        "user_auc": bootstrap.statistic(lambda rows: mean_user_auc(p[rows], liked[rows], user[rows])),
        "log_loss": float(log_loss(p, liked).mean()),
        "calibration_error": calibration_error(p, liked),
    }


def _differences(
    metric: str,
    measure: Callable[[NDArray[np.float64], NDArray[np.int64]], float],
    chances: dict[str, NDArray[np.float64]],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """`measure` of (chances, row positions): the tuned model minus each other row, with paired intervals.

    The best baseline is None where the measure is defined for none of them.
    """
    everyone = np.arange(len(bootstrap.position))
    value = {name: measure(p, everyone) for name, p in chances.items()}
    rivals = [name for name in chances if name not in (UNTUNED, TUNED)]
    known = [name for name in rivals if not np.isnan(value[name])]
    best = max(known, key=lambda name: value[name]) if known else None
    tuned = chances[TUNED]

    def difference(p: NDArray[np.float64]) -> tuple[float, float, float]:
        return bootstrap.statistic(lambda rows: measure(tuned, rows) - measure(p, rows))

    return {
        "metric": metric,
        "best_baseline": best,
        "differences": {name: difference(p) for name, p in chances.items() if name != TUNED},
    }


def _in_words(evidence: Evidence, count: int) -> list[dict[str, Any]]:
    rows, out = evidence.split.test, []
    for i in evenly(len(rows), count):
        variables = evidence.task.variables(int(i))
        out.append(
            {
                "user": evidence.split.log.users[int(rows.user[i])],
                "liked": [item["title"] for item in variables["history"] if item["liked"]],
                "disliked": [item["title"] for item in variables["history"] if not item["liked"]],
                "target": variables["target"]["title"],
                "answer": "Yes" if evidence.task.target[i] else "No",
                "chance": float(evidence.answers["tuned"][i, -1]),
            }
        )
    return out
