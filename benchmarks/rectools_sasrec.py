"""SASRec as RecTools has it in eSASRec's comparison, on our split: what its recipe is worth apart from its rows (see benchmarks/README.md, sasrec.py).

    OMP_NUM_THREADS=1 python -m benchmarks.rectools_sasrec RECIPE OUT [--data.path PATH] [--dim 64] [--epochs 200] [--patience 20]

One layer and one head, dropout on the item table too, positions counted from the end, 256 negatives a position, Xavier's first values, Adam
without weight decay; the network of the SASRec paper, whose queries alone are normalised before attention. Written anew from the settings of that repository.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from benchmarks.search import pair_of
from benchmarks.side_by_side import say, say_versions
from rectune.baselines.sasrec_training import shuffled_batches, training_sequences, validation_ndcg
from rectune.baselines.scoring import list_rows
from rectune.cli import parse_overrides
from rectune.decoding.ranking import recall_and_ndcg
from rectune.log.split import Rows, Split
from rectune.recipe.load import load_recipe
from rectune.run.run import open_recipe

HISTORY, DROPOUT, NEGATIVES, BATCH, RATE = 50, 0.2, 256, 128, 1e-3


class Block(nn.Module):
    """Attention and two dense layers, each added to what came in."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, 1, DROPOUT, batch_first=True)
        self.before, self.after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.first, self.second = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.drop, self.last_drop = nn.Dropout(DROPOUT), nn.Dropout(DROPOUT)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """New states, shape (rows, positions, dim)."""
        query = self.before(states)
        seen, _ = self.attention(query, states, states, attn_mask=mask, need_weights=False)
        out = self.after(query + seen)
        return self.last_drop(self.second(self.drop(functional.relu(self.first(out))))) + out


class Network(nn.Module):
    """The table of items, whose last row is padding, one block and a norm."""

    def __init__(self, items: int, dim: int) -> None:
        super().__init__()
        self.items = items
        self.weight = nn.Parameter(torch.empty(items + 1, dim))
        self.place = nn.Embedding(HISTORY + 1, dim)
        self.drop, self.block, self.norm = nn.Dropout(DROPOUT), Block(dim), nn.LayerNorm(dim)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        with torch.no_grad():
            self.weight[items] = 0

    def forward(self, ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """States of rows that are padded on the left, shape (rows, positions, dim)."""
        length = ids.shape[1]
        real = (ids != self.items)[..., None]
        states = self.drop(functional.embedding(ids, table) + self.place(torch.arange(length - 1, -1, -1))) * real
        mask = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
        out: torch.Tensor = self.norm(self.block(states, mask) * real)
        return out

    def padded(self, sequences: Sequence[Any]) -> torch.Tensor:
        """Sequences as one array, shape (rows, longest)."""
        longest = max(map(len, sequences))
        out = np.full((len(sequences), longest), self.items, dtype=np.int64)
        for row, sequence in enumerate(sequences):
            out[row, longest - len(sequence) :] = sequence
        return torch.from_numpy(out)

    def loss(self, batch: Sequence[NDArray[Any]]) -> torch.Tensor:
        """Softmax over the target and drawn negatives, the mean over positions."""
        came, targets = self.padded([s[:-1] for s in batch]), self.padded([s[1:] for s in batch])
        table = self.drop(self.weight)
        states, real = self(came, table), targets != self.items
        states, targets = states[real], targets[real]
        drawn = torch.randint(self.items, (len(targets), NEGATIVES))
        others = torch.bmm(functional.embedding(drawn, table), states[:, :, None])[..., 0]
        logits = torch.cat([(states * table[targets]).sum(1, keepdim=True), others], 1)
        return functional.cross_entropy(logits, torch.zeros_like(targets))

    @torch.no_grad()
    def log_probabilities(self, split: Split, rows: Rows) -> NDArray[np.float64]:
        """Of every item after each row's history, shape (rows, items)."""
        self.eval()
        out = np.zeros((len(rows), self.items))
        for begin in range(0, len(rows), 64):
            some = range(begin, min(begin + 64, len(rows)))
            states = self(self.padded([split.earlier(rows, i)[-HISTORY:] for i in some]), self.weight)[:, -1]
            out[list(some)] = functional.log_softmax((states @ self.weight[:-1].T).double(), -1).numpy()
        return out


def train(split: Split, *, dim: int, epochs: int, patience: int, seed: int) -> tuple[Network, int, int]:
    """The network of the best epoch on 2,000 validation rows, that epoch, and how many were trained."""
    torch.manual_seed(seed)
    model, draw = Network(split.log.n_items, dim), np.random.default_rng(seed)
    sequences = training_sequences(split, HISTORY)
    adam = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    best, best_epoch, kept, begin = -1.0, 0, model.state_dict(), time.monotonic()
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in shuffled_batches(sequences, BATCH, draw):
            adam.zero_grad()
            model.loss(batch).backward()
            adam.step()
        ndcg = validation_ndcg(split, cast(Any, model), most=2000)
        say(f"epoch {epoch}: ndcg@10 {ndcg:.4f}, {time.monotonic() - begin:.0f} s")
        if ndcg > best:
            best, best_epoch = ndcg, epoch
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        if epoch - best_epoch >= patience:
            break
    model.load_state_dict(kept)
    return model.eval(), best_epoch, epoch


def main() -> None:
    """Train, and rank all validation and test rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("out")
    for name, value in (("dim", 64), ("epochs", 200), ("patience", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args, rest = parser.parse_known_args()
    run = open_recipe(load_recipe(args.recipe, parse_overrides([*rest, "--output_dir", args.out])))
    with run.folder.lock():
        split = run.split
    say_versions()
    model, best, trained = train(split, dim=args.dim, epochs=args.epochs, patience=args.patience, seed=args.seed)
    say(f"best epoch {best} of {trained}")
    for name in ("validation", "test"):
        rows = getattr(split, name)
        found = list_rows(split, rows, lambda part: model.log_probabilities(split, part), width=1)
        hidden, shown = (pair_of(recall_and_ndcg(one.place, 10)) for one in found)
        say(f"{name}: recall@10, ndcg@10 hidden {hidden}, not hidden {shown}")


if __name__ == "__main__":
    main()
