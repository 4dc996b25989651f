"""SASRec with full-softmax cross-entropy, trained for the table."""

from __future__ import annotations

from rectune.baselines.sasrec_network import SasRecSettings, train_sasrec
from rectune.baselines.scoring import Baseline, Floats
from rectune.log.split import Rows, Split


def sasrec(split: Split, *, epochs: int, seed: int, device: str = "auto") -> Baseline:
    """score(i) = log p(i | history) of a SASRec of ours; its best epoch is chosen on validation. `device`: where it is trained."""
    settings = SasRecSettings(epochs=epochs)
    model = train_sasrec(split, settings, seed=seed, device=device)

    def score(rows: Rows) -> Floats:
        return model.log_probabilities(split, rows)

    chosen = {
        "dimensions": settings.dimensions,
        "layers": settings.layers,
        "dropout": settings.dropout,
        "epochs": epochs,
    }
    return Baseline("SASRec, cross-entropy", chosen, score)
