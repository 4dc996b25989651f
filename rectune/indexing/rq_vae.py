"""Semantic ids by an RQ-VAE over item vectors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from rectune.indexing.item_index import Codes, ItemIndex, colliding_items
from rectune.indexing.quantised import quantised_index
from rectune.indexing.quantiser import Quantiser, Vectors, check_collapse, check_sizes, fit_residuals
from rectune.indexing.repair import Repair
from rectune.indexing.sinkhorn import spread_evenly
from rectune.log.split import Split
from rectune.runtime.device import device_of
from rectune.runtime.progress import watched
from rectune.vectors.item_vectors import ItemVectors


@dataclass(frozen=True)
class RqVaeSettings:
    """`levels` x `codes` of `dimensions`; an encoder of `hidden` layers, its mirror image as decoder; AdamW.

    `commitment` is beta of the quantisation loss. `sinkhorn`: epsilon of the uniform mapping on the last level (LC-Rec),
    0 for none. Every `check` epochs collisions are counted and codes that no item uses start anew.
    """

    levels: int = 4
    codes: int = 256
    dimensions: int = 32
    hidden: tuple[int, ...] = (256, 128)
    epochs: int = 300
    batch: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    commitment: float = 0.25
    sinkhorn: float = 0.003
    check: int = 10

    def __post_init__(self) -> None:
        for name in ("dimensions", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"`index.{name}` must be at least 1, got {getattr(self, name)}.")


@dataclass
class Fitted:
    """A trained RQ-VAE: the quantiser, the codes of the items, distances to the last level's codes, curves by epoch."""

    quantiser: Quantiser
    codes: Codes
    distances: NDArray[np.float32]
    curves: dict[str, list[float]] = field(default_factory=dict)


Extra = Callable[
    ["RqVae", torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor
]  # model, rows, quantised, codes -> loss


def rq_vae(
    split: Split,
    vectors: ItemVectors,
    *,
    levels: int = 4,
    codes: int = 256,
    dimensions: int = 32,
    hidden: list[int] = [256, 128],  # noqa: B006  read only
    epochs: int = 300,
    batch: int = 1024,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    commitment: float = 0.25,
    sinkhorn: float = 0.003,
    repair: Repair = "reassign",
    complete: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> ItemIndex:
    """Quantise an autoencoder's middle level by level (Zeghidour et al., 2021; TIGER sec. 3.1; LC-Rec sec. 3.1).

    Keys: those of `RqVaeSettings` but `check`; `repair`: how items that end with the same codes are told apart (see `repaired`); `complete`: see `residual_kmeans`. LC-Rec's
    encoder has hidden layers of 2048, 1024, 512, 256, 128 and 64 and 10,000 epochs; the defaults here suit a CPU.
    """
    settings = RqVaeSettings(
        levels, codes, dimensions, tuple(hidden), epochs, batch, learning_rate, weight_decay, commitment, sinkhorn
    )
    fitted = train_rq_vae(vectors.joined(), settings, seed=seed, device=device)
    return index_of(split, vectors, fitted, settings, repair, complete=complete)


def index_of(
    split: Split,
    vectors: ItemVectors,
    fitted: Fitted,
    settings: RqVaeSettings,
    repair: Repair,
    *,
    blocks: Sequence[int] | None = None,
    complete: bool = False,
) -> ItemIndex:
    """The index of a trained RQ-VAE, its names made unique, with its curves in the health report."""
    check_collapse(fitted.codes, codes=settings.codes)
    index = quantised_index(
        split, vectors, fitted.quantiser, fitted.codes, fitted.distances, repair=repair, blocks=blocks, complete=complete
    )  # fmt: skip
    index.health["training"] = fitted.curves
    return index


class RqVae(nn.Module):
    """Encoder, codebooks (levels, codes, dimensions) and decoder."""

    def __init__(self, width: int, settings: RqVaeSettings) -> None:
        super().__init__()
        sizes = [width, *settings.hidden, settings.dimensions]
        self.encoder = _perceptron(sizes)
        self.decoder = _perceptron(sizes[::-1])
        self.books = nn.Parameter(torch.zeros(settings.levels, settings.codes, settings.dimensions))

    def quantise(
        self, latent: torch.Tensor, *, sinkhorn: float
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Codes (B, levels), the sum of their vectors (B, dimensions), and what was left at each level (B, dimensions)."""
        residual, total, codes, left = latent, torch.zeros_like(latent), [], []
        for level, book in enumerate(self.books):
            distances = torch.cdist(residual.detach(), book.detach()) ** 2
            last = level + 1 == len(self.books)
            chosen = spread_evenly(distances, sinkhorn).argmax(1) if last and sinkhorn else distances.argmin(1)
            left.append(residual)
            total = total + book[chosen]
            residual = residual - book[chosen].detach()
            codes.append(chosen)
        return torch.stack(codes, 1), total, left

    def frozen(self) -> Quantiser:
        """The same as arrays."""
        linear = [m for m in self.encoder if isinstance(m, nn.Linear)]
        layers = tuple((_array(m.weight), _array(m.bias)) for m in linear)
        return Quantiser(tuple(_array(book) for book in self.books), layers)


def train_rq_vae(
    vectors: Vectors, settings: RqVaeSettings, *, seed: int, extra: Extra | None = None, device: str = "auto"
) -> Fitted:
    """Train on all `vectors` (items, width) and keep the epoch with the fewest collisions, then the lowest loss.

    Codebooks start from k-means over all items. `extra`: a further loss of (model, rows, quantised, codes). `device`: 'auto', 'cpu'
    or 'cuda'.
    """
    check_sizes(len(vectors), levels=settings.levels, codes=settings.codes)
    torch.manual_seed(seed)
    data = torch.from_numpy(vectors).to(device_of(device))
    model = RqVae(data.shape[1], settings).to(data.device)
    _start_books(model, data, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * -(-len(data) // settings.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(1 - step / steps, 0.02))
    curves: dict[str, list[float]] = {
        name: [] for name in ("epoch", "reconstruction", "quantisation", "colliding_items")
    }
    best: tuple[tuple[int, float], Any] | None = None
    for epoch in watched(range(1, settings.epochs + 1), settings.epochs, "training RQ-VAE", "epochs"):
        losses = [
            _step(model, data, rows, settings, optimizer, extra)
            for rows in torch.split(torch.randperm(len(data)), settings.batch)
        ]
        for _ in losses:
            schedule.step()
        if epoch % settings.check and epoch < settings.epochs:
            continue
        reconstruction, quantisation = np.mean(losses, axis=0).tolist()
        codes, _ = assign(model.frozen(), vectors, sinkhorn=settings.sinkhorn)
        colliding = int(colliding_items(codes).sum())
        for name, value in zip(curves, (epoch, reconstruction, quantisation, colliding), strict=True):
            curves[name].append(value)
        if best is None or (colliding, reconstruction + quantisation) < best[0]:
            best = ((colliding, reconstruction + quantisation), copy.deepcopy(model.frozen()))
        if epoch < settings.epochs * 0.8:
            _revive(model, data, codes)
    assert best is not None
    codes, distances = assign(best[1], vectors, sinkhorn=settings.sinkhorn)
    return Fitted(best[1], codes, distances, curves)


def assign(quantiser: Quantiser, vectors: Vectors, *, sinkhorn: float) -> tuple[Codes, NDArray[np.float32]]:
    """Codes of all items, the last level spread evenly over all of them; and distances to the last level's codes."""
    codes, distances = quantiser.codes(vectors)
    if sinkhorn:
        codes[:, -1] = spread_evenly(torch.from_numpy(distances), sinkhorn).argmax(1).numpy()
    return codes, distances


def _step(
    model: RqVae, data: torch.Tensor, rows: torch.Tensor, settings: RqVaeSettings, optimizer: Any, extra: Extra | None
) -> tuple[float, float]:
    batch = data[rows.to(data.device)]
    latent = model.encoder(batch)
    codes, total, left = model.quantise(latent, sinkhorn=settings.sinkhorn)
    through = latent + (total - latent).detach()  # straight-through: the decoder's gradient goes on to the encoder
    reconstruction = functional.mse_loss(model.decoder(through), batch)
    quantisation = torch.zeros((), device=data.device)
    for level, residual in enumerate(left):
        chosen = model.books[level][codes[:, level]]
        quantisation = quantisation + functional.mse_loss(chosen, residual.detach())
        quantisation = quantisation + settings.commitment * functional.mse_loss(residual, chosen.detach())
    loss = reconstruction + quantisation / len(left)
    if extra is not None:
        loss = loss + extra(model, rows, through, codes)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return reconstruction.item(), quantisation.item()


@torch.no_grad()
def _start_books(model: RqVae, data: torch.Tensor, seed: int) -> None:
    levels, codes, _ = model.books.shape
    fitted = fit_residuals(_array(model.encoder(data)), levels=levels, codes=codes, seed=seed, runs=1)
    for level, book in enumerate(fitted.codebooks):
        model.books[level, : len(book)] = torch.from_numpy(book).to(data.device)


@torch.no_grad()
def _revive(model: RqVae, data: torch.Tensor, codes: Codes) -> None:
    """Put each code that no item uses on what is left of an item drawn at random."""
    residual = model.encoder(data)
    for level, book in enumerate(model.books):
        used = torch.from_numpy(np.bincount(codes[:, level], minlength=len(book)) > 0).to(data.device)
        dead = torch.nonzero(~used)[:, 0]
        if len(dead):
            drawn = torch.randint(len(data), (len(dead),)).to(data.device)
            book[dead] = residual[drawn]
        residual = residual - book[torch.from_numpy(codes[:, level]).long().to(data.device)]


def _perceptron(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float32).copy()
