"""The rows of a rating report that need no language model, their weights chosen on validation rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from rectune.baselines.rating_factors import Penalty, RatingFactors, fit_factors
from rectune.baselines.rating_means import earlier_mean, global_mean, log_ratings, user_mean
from rectune.baselines.scoring import Floats
from rectune.log.split import Rows, Split, evenly

# The first of each is taken where there are no validation rows to choose on.
BIAS_PENALTIES = (5.0, 2.0, 10.0, 20.0, 40.0)
FACTORS = (8, 4, 16)
FACTOR_PENALTIES = (10.0, 5.0, 20.0)
MOST_ROWS = 20_000  # validation rows that a choice is made on
Predict = Callable[[RatingFactors, Split, Rows], Floats]


@dataclass(frozen=True)
class RatingRow:
    """A row of the table: its name, the weights that were chosen, and its predictions for the test rows, (rows,)."""

    name: str
    settings: dict[str, Any]
    predicted: Floats


def rating_rows(split: Split, *, seed: int) -> list[RatingRow]:
    """Four rows from training events alone, and three that also read what the user rated before the target.

    The prompt shows earlier ratings too, so the second three are what a model has to beat.
    """
    rows = split.test
    biases = [_fit(split, 0, Penalty(bias), seed) for bias in BIAS_PENALTIES]
    grid = product(FACTORS, FACTOR_PENALTIES, BIAS_PENALTIES[::3])  # a small and a large penalty for the biases
    factorised = [_fit(split, factors, Penalty(bias, factor), seed) for factors, factor, bias in grid]
    return [
        RatingRow("global mean", {}, global_mean(split, rows)),
        RatingRow("user mean", {}, user_mean(split, rows)),
        _chosen("biases", split, biases, RatingFactors.known),
        _chosen("matrix factorisation", split, factorised, RatingFactors.known),
        RatingRow("mean of earlier ratings", {}, earlier_mean(split, rows)),
        _chosen("biases, earlier ratings", split, biases, RatingFactors.with_earlier),
        _chosen("matrix factorisation, earlier ratings", split, factorised, RatingFactors.with_earlier),
    ]


def _fit(split: Split, factors: int, penalty: Penalty, seed: int) -> RatingFactors:
    return fit_factors(split, factors=factors, penalty=penalty, seed=seed)


def _chosen(name: str, split: Split, fitted: Sequence[RatingFactors], predict: Predict) -> RatingRow:
    """The model with the lowest RMSE on validation rows, or the first where there are none."""
    rows = split.validation.take(evenly(len(split.validation), MOST_ROWS))
    given = log_ratings(split)[rows.target]
    errors = [_rmse(predict(model, split, rows), given) for model in fitted]
    best = int(np.argmin(errors)) if len(rows) else 0
    model = fitted[best]
    settings = {"bias_penalty": model.penalty.bias}
    if model.items.shape[1] > 1:
        settings |= {"factors": model.items.shape[1] - 1, "factor_penalty": model.penalty.factor}
    return RatingRow(name, {**settings, "validation_rmse": round(errors[best], 6)}, predict(model, split, split.test))


def _rmse(predicted: Floats, given: Floats) -> float:
    return float(np.sqrt(((predicted - given) ** 2).mean())) if len(given) else float("nan")
