"""SASRec trained with full-softmax cross-entropy: a strong small sequence model, and a source of item vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from rectune.baselines.scoring import least_equal
from rectune.log.split import Rows, Split, evenly
from rectune.runtime.device import device_of
from rectune.runtime.progress import watched
from rectune.runtime.room import LEAST_ROWS

Floats = NDArray[np.float64]
FILE = "sasrec.safetensors"


@dataclass(frozen=True)
class SasRecSettings:
    """`dimensions` of item vectors, `layers`, `heads`, `dropout`; histories of at most `history` items; AdamW with
    `learning_rate` (linear warm-up over 5 %, then cosine) and `weight_decay` over `epochs`, `batch` windows a step."""

    dimensions: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.3
    history: int = 20
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    batch: int = 64
    epochs: int = 30

    def __post_init__(self) -> None:
        for name in ("dimensions", "layers", "heads", "history", "batch", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` of SASRec must be at least 1, got {getattr(self, name)}.")
        if self.dimensions % self.heads:
            raise ValueError(
                f"`dimensions` of SASRec must be a multiple of its {self.heads} heads, got {self.dimensions}."
            )


class SasRec(nn.Module):
    """Causal self-attention over items (Kang and McAuley, ICDM 2018), scores = last state x item vectors.

    Trained with cross-entropy over the whole catalogue instead of sampled negatives (Klenitskiy and Vasilev, RecSys 2023).
    """

    def __init__(self, items: int, settings: SasRecSettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.dimensions
        self.item = nn.Embedding(items + 1, width)  # the last row starts every sequence, and pads it
        self.place = nn.Embedding(settings.history + 1, width)
        self.dropout = nn.Dropout(settings.dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, settings.heads, 4 * width, settings.dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(width)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """States after each item, (B, T, dimensions); `items` (B, T) int64, the start first, padded on the right."""
        length = items.shape[1]
        hidden = self.dropout(self.item(items) + self.place(torch.arange(length, device=items.device)))
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=items.device)
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask, is_causal=True)
        return torch.as_tensor(self.norm(hidden))

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Scores of all items after each state, (..., items)."""
        return functional.linear(states, self.item.weight[:-1])

    def vectors(self) -> NDArray[np.float32]:
        """Item vectors, (items, dimensions)."""
        return np.array(self.item.weight[:-1].detach().float().cpu().numpy())

    def save(self, folder: Path) -> None:
        """Write the weights and settings into one file."""
        settings = {name: str(value) for name, value in asdict(self.settings).items()}
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / FILE, metadata=settings)

    @torch.no_grad()
    def log_probabilities(self, split: Split, rows: Rows) -> Floats:
        """log p(item | history) for each row, (rows, items it was trained on); later items of a history are passed over."""
        self.eval()
        items = self.item.num_embeddings - 1
        out = np.zeros((len(rows), items))
        for begin in range(0, len(rows), LEAST_ROWS):
            which = range(
                begin, min(begin + LEAST_ROWS, len(rows))
            )  # what rows are batched with must not depend on the room
            known = [history[history < items] for history in (split.history(rows, i) for i in which)]
            histories = [history[-self.settings.history :] for history in known]
            last = torch.tensor([len(history) for history in histories])
            states = self(self.started(histories))[torch.arange(len(which)), last]
            out[which] = functional.log_softmax(self.logits(states).double(), -1).cpu().numpy()
        return out

    def started(self, sequences: list[NDArray[Any]]) -> torch.Tensor:
        """Sequences of item codes behind the start, padded on the right, (B, T) int64."""
        start = self.item.num_embeddings - 1
        rows = [torch.from_numpy(np.append(start, sequence).astype(np.int64)) for sequence in sequences]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=start).to(self.item.weight.device)


def load_sasrec(folder: Path) -> SasRec:
    """Read what `SasRec.save` wrote."""
    from safetensors import safe_open

    with safe_open(folder / FILE, "pt") as file:
        written = file.metadata()
    kinds = {name: type(value) for name, value in asdict(SasRecSettings()).items()}
    settings = SasRecSettings(**{name: kinds[name](text) for name, text in written.items() if name in kinds})
    weights = load_file(folder / FILE)
    model = SasRec(len(weights["item.weight"]) - 1, settings)
    model.load_state_dict(weights)
    return model.eval()


@lru_cache(maxsize=1)
def train_sasrec(
    split: Split, settings: SasRecSettings, *, seed: int, checks: int = 10, device: str = "auto"
) -> SasRec:
    """Train on the training events, one window of `history` + 1 items a sequence, every item a target.

    Only events that the split shows for training are seen, one after another of the same user. `device`: 'auto', 'cpu' or 'cuda'.
    Of `checks` evenly spread epochs the one with the best NDCG@10 on a sample of validation rows is kept, the last one where
    the split has none. Asked the same again in one process, as a prior and a row of the table do, it gives the same model.
    """
    torch.manual_seed(seed)
    model = SasRec(split.log.n_items, settings).to(device_of(device))
    sequences = training_sequences(split, settings.history)
    if not sequences:
        raise ValueError("there is nothing to train SASRec on: no user has two training events.")
    steps = settings.epochs * -(-len(sequences) // settings.batch)
    optimizer = torch.optim.AdamW(_groups(model, settings.weight_decay), lr=settings.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, steps))
    draw = np.random.default_rng(seed)
    best: tuple[float, dict[str, torch.Tensor]] | None = None
    look = set(np.unique(np.linspace(1, settings.epochs, num=min(checks, settings.epochs), dtype=int)).tolist())
    for epoch in watched(range(1, settings.epochs + 1), settings.epochs, "training SASRec", "epochs"):
        model.train()
        for batch in _batches(sequences, settings.batch, draw):
            loss = _loss(model, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        if epoch in look and (value := validation_ndcg(split, model)) >= (best[0] if best else 0.0):
            best = (value, {k: v.detach().clone() for k, v in model.state_dict().items()})
    assert best is not None
    model.load_state_dict(best[1])
    return model.cpu().eval()


def training_sequences(split: Split, length: int) -> list[NDArray[Any]]:
    """Items of the training events of each user, oldest first, in windows of at most `length` + 1 that share one event, so that each
    event but a user's first is a target once."""
    users, items = split.train_sequences()
    edges = [0, *(np.flatnonzero(users[1:] != users[:-1]) + 1).tolist(), len(users)]
    return [
        items[start : min(start + length + 1, end)]
        for begin, end in pairwise(edges)
        for start in range(begin, end - 1, length)
    ]


def validation_ndcg(split: Split, model: SasRec, *, most: int = 2000) -> float:
    """NDCG@10 on a sample of validation rows, seen items hidden."""
    rows = split.validation.take(evenly(len(split.validation), most))
    if not len(rows):
        return 0.0
    total = 0.0
    for begin in range(0, len(rows), LEAST_ROWS):
        part = rows.take(np.arange(begin, min(begin + LEAST_ROWS, len(rows))))
        scores, targets = model.log_probabilities(split, part), split.targets(part)
        for i in range(len(part)):
            scores[i, split.seen(part, i)] = -np.inf
        own = scores[np.arange(len(part)), targets]
        place = (scores >= least_equal(own)[:, None]).sum(1) - 1
        total += float(np.where((place < 10) & np.isfinite(own), 1 / np.log2(place + 2.0), 0.0).sum())
    return total / len(rows)


def _loss(model: SasRec, sequences: list[NDArray[Any]]) -> torch.Tensor:
    ids = model.started(sequences)
    states, targets = model(ids[:, :-1]), ids[:, 1:]
    real = targets != model.item.num_embeddings - 1
    return functional.cross_entropy(model.logits(states[real]), targets[real])


def _batches(sequences: list[NDArray[Any]], size: int, draw: np.random.Generator) -> Iterator[list[NDArray[Any]]]:
    """Shuffled batches of sequences of like length."""
    order = draw.permutation(len(sequences))
    lengths = np.array([len(sequences[i]) for i in order])
    sorted_in_pools = [
        order[begin : begin + 50 * size][np.argsort(lengths[begin : begin + 50 * size], kind="stable")]
        for begin in range(0, len(order), 50 * size)
    ]
    batches = [pool[begin : begin + size] for pool in sorted_in_pools for begin in range(0, len(pool), size)]
    for number in draw.permutation(len(batches)):
        yield [sequences[i] for i in batches[number]]


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _warm_cosine(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return float(0.5 * (1 + np.cos(np.pi * (step - warm) / max(1, steps - warm))))
