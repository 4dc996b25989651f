"""SASRec as a row of the table."""

from __future__ import annotations

from dataclasses import asdict

from rectune.baselines.sasrec_network import SasRec
from rectune.baselines.scoring import Baseline, Floats
from rectune.log.split import Rows, Split


def sasrec(split: Split, model: SasRec) -> Baseline:
    """score(i) = log p(i | history) of a trained SASRec; its settings say how it was trained and what else was tried."""

    def score(rows: Rows) -> Floats:
        return model.log_probabilities(split, rows)

    return Baseline(model.settings.said, {**asdict(model.settings), **model.about}, score)
