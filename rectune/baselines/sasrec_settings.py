"""How a SASRec is built and trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SasRecSettings:
    """How a SASRec is built and trained.

    `dimensions` of item vectors, `layers`, `heads`, `dropout`; histories of at most `history` items. `loss`: over the whole catalogue
    ('full_softmax') or over the target and `negatives` items that a step draws for all of its targets ('sampled_softmax'), as often as
    their training events to the power `sampling_power` (0: evenly), with `log_q` their log-probability of being drawn taken off
    (Bengio and Senécal, 2008). AdamW with `learning_rate` ('cosine': after a warm-up over 5 % of the steps; or 'constant') and `weight_decay` over at
    most `epochs`, `batch` windows a step. `patience`: end after so many epochs without a better NDCG@10 on `validation_rows`
    validation rows, looked at after every epoch; null looks ten times and trains on to the end. `vectors`: how the item vectors of the
    recipe enter: null not at all, 'initial' as first values (their main directions), 'projected' frozen and through a trained
    linear map, 'null_space' frozen in half of the dimensions beside trained ones in the other half (as AlphaFuse does).
    """

    dimensions: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.3
    history: int = 20
    loss: Literal["full_softmax", "sampled_softmax"] = "full_softmax"
    negatives: int = 256
    sampling_power: float = 0.0
    log_q: bool = False
    learning_rate: float = 1e-3
    lr_scheduler_type: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.1
    batch: int = 64
    epochs: int = 30
    patience: int | None = None
    validation_rows: int = 2000
    vectors: Literal["initial", "projected", "null_space"] | None = None

    def __post_init__(self) -> None:
        at_least_1 = ("dimensions", "layers", "heads", "history", "negatives", "batch", "epochs", "validation_rows")
        for name in (*at_least_1, *(("patience",) if self.patience is not None else ())):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` of SASRec must be at least 1, got {getattr(self, name)}.")
        for name in ("sampling_power", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` of SASRec must be a number from 0 on, got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"`learning_rate` of SASRec must be above 0, got {self.learning_rate}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` of SASRec must be from 0 on and below 1, got {self.dropout}.")
        if self.dimensions % self.heads:
            raise ValueError(
                f"`dimensions` of SASRec must be a multiple of its {self.heads} heads, got {self.dimensions}."
            )

    @property
    def said(self) -> str:
        """What tables call it."""
        text = {
            "initial": ", started from vectors",
            "projected": ", projected vectors",
            "null_space": ", vectors and ids",
        }
        return f"SASRec, {self.loss.replace('_', ' ')}{text[self.vectors] if self.vectors else ''}"
