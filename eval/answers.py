"""The judge of Yes/No runs: AUC and calibration beside rules that read no title."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rectune.eval.baselines.likes import both, item_like_rate, share_of_likes
from rectune.eval.intervals import Bootstrap
from rectune.eval.metrics.auc import auc
from rectune.eval.metrics.calibration_error import calibration_error
from rectune.eval.metrics.log_loss import log_loss
from rectune.eval.metrics.user_auc import mean_user_auc
from rectune.eval.page import answer_figures, answer_text, page
from rectune.eval.seeds import summarise

from rectune.evidence import Evidence, Report
from rectune.split import evenly

__all__ = ["answers", "summarise"]

UNTUNED, TUNED = "untuned model", "tuned model"
SHARE, RATE, BOTH = "share of likes in the history", "item's like-rate", "share and like-rate"


def answers(evidence: Evidence, *, bootstrap_samples: int = 500, shuffled_rows: int = 0, examples: int = 8) -> Report:
    """Judge a run that answers Yes or No about one item.

    Rows: the share of likes in the history, the item's like-rate among training targets, both, the untuned and the
    tuned model. AUC with its per-user bootstrap interval, per-user AUC, log loss and calibration error.
    `shuffled_rows` is only for runs that rank.
    """
    split, rows = evidence.split, evidence.split.test
    liked = evidence.task.target.astype(np.int64)
    likes = _likes(evidence)
    share, rate = share_of_likes(split, rows, likes), item_like_rate(split, rows, likes)
    chances = {SHARE: share, RATE: rate, BOTH: both(share, rate)}
    chances |= {UNTUNED: evidence.answers["untuned"][:, -1], TUNED: evidence.answers["tuned"][:, -1]}
    bootstrap = Bootstrap(rows.user, samples=bootstrap_samples, seed=evidence.seed)
    results = {
        "table": {name: _measure(p, liked, rows.user, bootstrap) for name, p in chances.items()},
        "tuned_against": _differences(chances, liked, bootstrap),
        "rows": len(rows),
        "users": len(np.unique(rows.user)),
        "share_liked": float(liked.mean()),
        "split": split.notes,
        "log": {
            "users": split.log.n_users,
            "items": split.log.n_items,
            "events": split.log.interactions.height,
            **split.log.notes,
        },
        "index_health": evidence.index.health,
        "audits": evidence.audits,
    }
    data = {
        "recipe": evidence.recipe.name, "settings": evidence.recipe.settings, "results": results, "measured": evidence.measured,
        "training": evidence.training, "environment": evidence.environment, "examples": _in_words(evidence, examples),
    }  # fmt: skip
    return Report(data, page(data, answer_figures(data, chances, liked), kind="answers"), answer_text(data))


def _likes(evidence: Evidence) -> NDArray[np.bool_]:
    """Whether each event is a like, by the threshold of the task."""
    ratings = evidence.split.log.ratings
    assert ratings is not None
    threshold = evidence.recipe.settings["tasks"][0].get("like_above", 3.0)
    return np.asarray(ratings > threshold)


def _measure(
    p: NDArray[np.float64], liked: NDArray[np.int64], user: NDArray[np.int64], bootstrap: Bootstrap
) -> dict[str, Any]:
    return {
        "auc": bootstrap.statistic(lambda rows: auc(p[rows], liked[rows])),
        "user_auc": mean_user_auc(p, liked, user),
        "log_loss": float(log_loss(p, liked).mean()),
        "calibration_error": calibration_error(p, liked),
    }


def _differences(
    chances: dict[str, NDArray[np.float64]], liked: NDArray[np.int64], bootstrap: Bootstrap
) -> dict[str, Any]:
    value = {name: auc(p, liked) for name, p in chances.items()}
    rivals = [name for name in chances if name not in (UNTUNED, TUNED)]
    best = max(rivals, key=lambda name: value[name])
    tuned = chances[TUNED]

    def difference(p: NDArray[np.float64]) -> tuple[float, float, float]:
        return bootstrap.statistic(lambda rows: auc(tuned[rows], liked[rows]) - auc(p[rows], liked[rows]))

    return {
        "metric": "auc",
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
