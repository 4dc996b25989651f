"""Training SASRec: full or sampled softmax, stopped by validation, resumed where it was interrupted, the best of a few configurations."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from rectune.baselines.sasrec_network import FILE, SasRec, load_sasrec
from rectune.baselines.sasrec_settings import SasRecSettings
from rectune.baselines.scoring import discounted, least_equal
from rectune.log.split import Split, evenly
from rectune.runtime.device import device_of
from rectune.runtime.progress import Progress
from rectune.runtime.room import LEAST_ROWS

LOOKS = 10  # evaluations of a training without patience
STATE = "training.pt"  # where a training that goes on is kept
EVERY = 30.0  # seconds between two writes of it, at the least


def best_sasrec(
    split: Split,
    several: Sequence[SasRecSettings],
    *,
    seed: int,
    device: str = "auto",
    vectors: NDArray[np.float32] | None = None,
    folder: Path,
) -> SasRec:
    """Train each configuration and keep the one with the best NDCG@10 on validation rows, in `folder`; what an earlier attempt
    left there is gone on with. `about["tried"]` of the model holds them all."""
    if not (folder / FILE).exists():  # else it was killed while it tidied up
        _chosen(split, several, seed, device, vectors, folder).save(folder)
    for place in folder.glob("configuration*"):
        shutil.rmtree(place)
    return load_sasrec(folder)


def _chosen(
    split: Split, several: Sequence[SasRecSettings], seed: int, device: str, vectors: NDArray[np.float32] | None, folder: Path
) -> SasRec:  # fmt: skip
    found: list[SasRec] = []
    for number, settings in enumerate(several):
        place = folder / f"configuration{number}"
        place.mkdir(exist_ok=True)
        if not (place / FILE).exists():
            train_sasrec(split, settings, seed=seed, device=device, vectors=vectors, folder=place).save(place)
            (place / STATE).unlink(missing_ok=True)
        found.append(load_sasrec(place))
    best = max(found, key=lambda model: float(model.about["ndcg@10"]))
    best.about["tried"] = [{**asdict(model.settings), **model.about} for model in found] if len(found) > 1 else []
    return best


def train_sasrec(
    split: Split,
    settings: SasRecSettings,
    *,
    seed: int,
    device: str = "auto",
    vectors: NDArray[np.float32] | None = None,
    folder: Path | None = None,
) -> SasRec:
    """Train on the training events, one window of `history` + 1 items a sequence, every item a target.

    Only events that the split shows for training are seen, one after another of the same user. `device`: 'auto', 'cpu' or 'cuda'.
    The epoch with the best NDCG@10 on validation rows is kept, the last one where the split has none. `vectors` (items, width): those
    that `settings.vectors` speaks of. `folder`: where the state is kept from time to time, and found again.
    """
    training = _Training(split, settings, seed, device_of(device), vectors)
    if folder is not None and (folder / STATE).exists():
        training.restore(torch.load(folder / STATE, weights_only=True))
    kept = time.monotonic()
    with Progress(settings.epochs, "training SASRec", "epochs", at=training.epoch) as progress:
        while not training.over:
            training.run_epoch()
            progress.note = f"NDCG@10 {training.best_value:.4f} in epoch {training.best_epoch}"
            progress.to(training.epoch)
            if folder is not None and time.monotonic() - kept > EVERY:
                torch.save(training.state(), folder / "writing.pt")
                (folder / "writing.pt").replace(folder / STATE)
                kept = time.monotonic()
    return training.result()


class _Training:
    """One training: its model, optimizer, draws, and the best epoch so far."""

    def __init__(
        self,
        split: Split,
        settings: SasRecSettings,
        seed: int,
        device: torch.device,
        vectors: NDArray[np.float32] | None,
    ) -> None:
        if settings.vectors is not None and vectors is None:
            raise ValueError(f"`vectors: {settings.vectors}` of SASRec needs item vectors, and there are none.")
        torch.manual_seed(seed)
        self.split, self.settings = split, settings
        self.patience = settings.patience if len(split.validation) else None  # without validation rows none runs out
        self.model = SasRec(split.log.n_items, settings, vectors).to(device)
        self.sequences = training_sequences(split, settings.history)
        if not self.sequences:
            raise ValueError("there is nothing to train SASRec on: no user has two training events.")
        steps = settings.epochs * -(-len(self.sequences) // settings.batch)
        groups = _groups(self.model, settings.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.99))
        constant = settings.lr_scheduler_type == "constant"
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: 1.0 if constant else _warm_cosine(step, steps)
        )
        self.draw = np.random.default_rng(seed)
        self.loss = _Loss(split, settings, seed, device)
        some = np.linspace(1, settings.epochs, num=min(LOOKS, settings.epochs), dtype=int).tolist()
        self.look = set(range(1, settings.epochs + 1) if self.patience else some)
        self.epoch, self.best_epoch, self.best_value = 0, 0, 0.0
        self.best: dict[str, torch.Tensor] = {}

    @property
    def over(self) -> bool:
        """Whether it has come to its end."""
        waited = self.patience is not None and self.epoch - self.best_epoch >= self.patience
        return self.epoch >= self.settings.epochs or waited

    def run_epoch(self) -> None:
        """Train an epoch, and look at the validation rows when it is time."""
        self.model.train()
        for batch in shuffled_batches(self.sequences, self.settings.batch, self.draw):
            loss = self.loss(self.model, batch)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
        self.epoch += 1
        if self.epoch not in self.look:
            return
        value = validation_ndcg(self.split, self.model, most=self.settings.validation_rows)
        # Of equal ones the later, as without validation rows all are, but where patience runs out.
        if not self.best or value > self.best_value or (value == self.best_value and self.patience is None):
            self.best_value, self.best_epoch = value, self.epoch
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def result(self) -> SasRec:
        """The model of the best epoch, on the CPU."""
        self.model.load_state_dict(self.best)
        model = self.model.cpu().eval()
        model.about = {"ndcg@10": self.best_value, "best_epoch": self.best_epoch, "epochs_trained": self.epoch}
        return model

    def state(self) -> dict[str, Any]:
        """All that it takes to go on as if nothing had been."""
        cuda = self.model.place.weight.device.type == "cuda"
        return {
            "model": self.model.state_dict(), "best": self.best, "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(), "epoch": self.epoch, "best_epoch": self.best_epoch,
            "best_value": self.best_value, "draw": self.draw.bit_generator.state, "negatives": self.loss.draw.get_state(),
            "torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if cuda else None,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.best, self.epoch, self.best_epoch = state["best"], state["epoch"], state["best_epoch"]
        self.best_value, self.draw.bit_generator.state = state["best_value"], state["draw"]
        self.loss.draw.set_state(state["negatives"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])


class _Loss:
    """Cross-entropy of the next item, over the catalogue or over items drawn."""

    def __init__(self, split: Split, settings: SasRecSettings, seed: int, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.draw = torch.Generator().manual_seed(seed)
        events = np.bincount(split.train_sequences()[1], minlength=split.log.n_items)
        share = np.maximum(events, 1.0) ** settings.sampling_power
        self.share = torch.from_numpy(share / share.sum())
        self.log_share = self.share.log().float().to(device)

    def __call__(self, model: SasRec, sequences: list[NDArray[Any]]) -> torch.Tensor:
        """Mean over the targets of some sequences."""
        ids, table = model.started(sequences), model.table()
        states, targets = model(ids[:, :-1], table), ids[:, 1:]
        real = targets != model.items
        states, targets = states[real], targets[real]
        if self.settings.loss == "full_softmax":
            return functional.cross_entropy(states @ table[:-1].T, targets)
        drawn = torch.multinomial(self.share, self.settings.negatives, replacement=True, generator=self.draw)
        drawn = drawn.to(self.device)
        own = (states * table[targets]).sum(1, keepdim=True)
        others = states @ table[drawn].T
        if self.settings.log_q:
            own, others = own - self.log_share[targets][:, None], others - self.log_share[drawn]
        others = others.masked_fill(drawn == targets[:, None], -torch.inf)
        return functional.cross_entropy(torch.cat([own, others], 1), torch.zeros_like(targets))


def training_sequences(split: Split, length: int) -> list[NDArray[Any]]:
    """Items of the training events of each user that follow each other, oldest first, in windows of at most `length` + 1 that share one event, so that each
    event but a user's first is a target once."""
    _, items = split.train_sequences()
    edges = [0, *(np.flatnonzero(~split.follows) + 1).tolist(), len(items)]
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
        total += float(np.where(np.isfinite(own), discounted(place), 0.0).sum())
    return total / len(rows)


def shuffled_batches(
    sequences: list[NDArray[Any]], size: int, draw: np.random.Generator
) -> Iterator[list[NDArray[Any]]]:
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
