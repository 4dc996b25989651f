"""SASRec: causal self-attention over items, a strong small sequence model and a source of item vectors."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from rectune.baselines.sasrec_settings import SasRecSettings
from rectune.log.split import Rows, Split
from rectune.runtime.room import LEAST_ROWS

Floats = NDArray[np.float64]
FILE = "sasrec.safetensors"
START_STD = 0.02


class SasRec(nn.Module):
    """Causal self-attention over items (Kang and McAuley, ICDM 2018), scores = last state x item vectors.

    `about`: how it was trained. `vectors` (items, width) float32: those that `settings.vectors` speaks of.
    """

    def __init__(self, items: int, settings: SasRecSettings, vectors: NDArray[np.float32] | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.about: dict[str, Any] = {}
        width = settings.dimensions
        self.table = _table(items, settings, vectors)  # the last row starts every sequence, and pads it
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
            if weight.dim() > 1 and not name.startswith("table."):
                nn.init.normal_(weight, std=START_STD)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    @property
    def items(self) -> int:
        """How many items it knows."""
        return self.table.items

    def forward(self, items: torch.Tensor, table: torch.Tensor | None = None) -> torch.Tensor:
        """States after each item, (B, T, dimensions); `items` (B, T) int64, the start first, padded on the right. `table`: `self.table()`."""
        length = items.shape[1]
        vectors = functional.embedding(items, self.table() if table is None else table)
        hidden = self.dropout(vectors + self.place(torch.arange(length, device=items.device)))
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=items.device)
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask, is_causal=True)
        return torch.as_tensor(self.norm(hidden))

    @torch.no_grad()
    def vectors(self) -> NDArray[np.float32]:
        """Item vectors, (items, dimensions)."""
        return np.array(self.table()[:-1].float().cpu().numpy())

    def save(self, folder: Path) -> None:
        """Write the weights, the settings and how it was trained into one file; item vectors as they came out, whatever they were made of."""
        with torch.no_grad():
            weights = {k: v for k, v in self.state_dict().items() if not k.startswith("table.")}
            weights["table.weight"] = self.table()
        said = {"settings": json.dumps(asdict(self.settings)), "about": json.dumps(self.about)}
        save_file({k: v.contiguous() for k, v in weights.items()}, folder / f"{FILE}.writing", metadata=said)
        (folder / f"{FILE}.writing").replace(folder / FILE)  # whoever finds the file finds it whole

    @torch.no_grad()
    def log_probabilities(self, split: Split, rows: Rows) -> Floats:
        """log p(item | history) for each row, (rows, items it was trained on); later items of a history are passed over."""
        self.eval()
        out = np.zeros((len(rows), self.items))
        table = self.table()
        for begin in range(0, len(rows), LEAST_ROWS):
            which = range(
                begin, min(begin + LEAST_ROWS, len(rows))
            )  # what rows are batched with must not depend on the room
            known = [history[history < self.items] for history in (split.earlier(rows, i) for i in which)]
            histories = [history[-self.settings.history :] for history in known]
            last = torch.tensor([len(history) for history in histories])
            states = self(self.started(histories), table)[torch.arange(len(which)), last]
            out[which] = functional.log_softmax((states @ table[:-1].T).double(), -1).cpu().numpy()
        return out

    def started(self, sequences: list[NDArray[Any]]) -> torch.Tensor:
        """Sequences of item codes behind the start, padded on the right, (B, T) int64."""
        rows = [torch.from_numpy(np.append(self.items, sequence).astype(np.int64)) for sequence in sequences]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.items).to(self.place.weight.device)


def load_sasrec(folder: Path) -> SasRec:
    """Read what `SasRec.save` wrote."""
    from safetensors import safe_open

    with safe_open(folder / FILE, "pt") as file:
        said = file.metadata()
    weights = load_file(folder / FILE)
    settings = SasRecSettings(**json.loads(said["settings"]))
    model = SasRec(len(weights["table.weight"]) - 1, settings, None)
    model.load_state_dict(weights)
    model.about = json.loads(said["about"])
    return model.eval()


# ---------------------------------------------------------------------------------------------------------- tables of item vectors


class _Plain(nn.Module):
    """A trained vector for each item and, last, for the start."""

    def __init__(self, items: int, width: int, first: torch.Tensor | None = None) -> None:
        super().__init__()
        self.items = items
        self.weight = nn.Parameter(_drawn(items + 1, width))
        if first is not None:
            self.weight.data[:-1] = first

    def forward(self) -> torch.Tensor:
        """(items + 1, width)."""
        return self.weight


class _Projected(nn.Module):
    """Frozen vectors through a trained linear map, and a trained start."""

    def __init__(self, vectors: torch.Tensor, width: int) -> None:
        super().__init__()
        self.items = len(vectors)
        self.given: torch.Tensor
        self.register_buffer("given", vectors)
        self.map = nn.Parameter(_drawn(vectors.shape[1], width))
        self.start = nn.Parameter(_drawn(1, width))

    def forward(self) -> torch.Tensor:
        """(items + 1, width)."""
        return torch.cat([torch.matmul(self.given, self.map), self.start])


class _NullSpace(nn.Module):
    """Frozen coordinates of the vectors along their main directions, times a trained scale, beside trained ids in the other dimensions."""

    def __init__(self, coordinates: torch.Tensor, width: int) -> None:
        super().__init__()
        self.items, kept = coordinates.shape
        self.given: torch.Tensor
        self.register_buffer("given", coordinates)
        self.scale = nn.Parameter(torch.ones(()))
        self.ids = nn.Parameter(_drawn(self.items, width - kept))
        self.start = nn.Parameter(_drawn(1, width))

    def forward(self) -> torch.Tensor:
        """(items + 1, width)."""
        return torch.cat([torch.cat([self.given * self.scale, self.ids], 1), self.start])


def _table(
    items: int, settings: SasRecSettings, vectors: NDArray[np.float32] | None
) -> _Plain | _Projected | _NullSpace:
    width = settings.dimensions
    if settings.vectors is None or vectors is None:
        return _Plain(items, width)
    given = torch.from_numpy(np.array(vectors, dtype=np.float32))
    given = given - given.mean(0)
    if settings.vectors == "projected":
        # Of norm 1 on average, so that a map drawn as every matrix gives vectors as large as drawn ones.
        return _Projected(given / given.square().sum(1).mean().sqrt().clamp_min(1e-12), width)
    kept = width if settings.vectors == "initial" else width // 2
    coordinates = _main_directions(given, kept, whiten=settings.vectors == "null_space")
    coordinates = START_STD * coordinates / coordinates.square().mean().sqrt().clamp_min(1e-12)
    if settings.vectors == "null_space":
        return _NullSpace(coordinates, width)
    return _Plain(items, width, functional.pad(coordinates, (0, width - coordinates.shape[1])))


def _main_directions(given: torch.Tensor, kept: int, *, whiten: bool) -> torch.Tensor:
    """Coordinates of centred rows along their `kept` main directions, (items, kept or fewer), each of variance 1 with `whiten`."""
    left, size, _ = torch.linalg.svd(given.double(), full_matrices=False)
    kept = min(kept, int((size > 1e-6 * size[0]).sum()))
    found: torch.Tensor = left[:, :kept] if whiten else left[:, :kept] * size[:kept]
    return found.float()


def _drawn(rows: int, columns: int) -> torch.Tensor:
    return START_STD * torch.randn(rows, columns)
