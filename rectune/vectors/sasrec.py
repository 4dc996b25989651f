"""Collaborative item vectors: the item embeddings of a SASRec of ours."""

from __future__ import annotations

from rectune.baselines.sasrec_network import SasRecSettings, train_sasrec
from rectune.log.split import Split
from rectune.vectors.item_vectors import ItemVectors, checked_vectors


def sasrec(
    split: Split, *, dimensions: int = 64, dropout: float = 0.3, epochs: int = 30, seed: int = 0, device: str = "auto"
) -> ItemVectors:
    """Train SASRec on the training events (see `train_sasrec`) and take its item vectors."""
    settings = SasRecSettings(dimensions=dimensions, dropout=dropout, epochs=epochs)
    model = train_sasrec(split, settings, seed=seed, device=device)
    return checked_vectors(split.log.items["item_id"].to_list(), model.vectors(), source="SASRec's item vectors")
