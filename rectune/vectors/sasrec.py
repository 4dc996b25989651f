"""Collaborative item vectors: the item embeddings of a SASRec of ours."""

from __future__ import annotations

from typing import Literal

from rectune.baselines.sasrec_settings import SasRecSettings
from rectune.baselines.sasrec_training import train_sasrec
from rectune.log.split import Split
from rectune.vectors.item_vectors import ItemVectors, checked_vectors


def sasrec(
    split: Split,
    *,
    dimensions: int = 64,
    dropout: float = 0.3,
    history: int = 20,
    loss: Literal["full_softmax", "sampled_softmax"] = "full_softmax",
    negatives: int = 256,
    epochs: int = 30,
    patience: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> ItemVectors:
    """Train SASRec on the training events (see `SasRecSettings`) and take its item vectors."""
    settings = SasRecSettings(
        dimensions=dimensions, dropout=dropout, history=history, loss=loss, negatives=negatives, epochs=epochs, patience=patience
    )  # fmt: skip
    model = train_sasrec(split, settings, seed=seed, device=device)
    return checked_vectors(split.log.items["item_id"].to_list(), model.vectors(), source="SASRec's item vectors")
