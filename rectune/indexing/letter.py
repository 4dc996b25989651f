"""LETTER's index: an RQ-VAE whose codes also agree with collaborative vectors and are used evenly."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from rectune.indexing.balanced_kmeans import balanced_clusters
from rectune.indexing.item_index import ItemIndex
from rectune.indexing.repair import Repair
from rectune.indexing.rq_vae import RqVae, RqVaeSettings, index_of, train_rq_vae
from rectune.log.split import Split
from rectune.vectors.item_vectors import ItemVectors


def letter(
    split: Split,
    vectors: ItemVectors,
    *,
    collaborative: int = -1,
    alignment: float = 0.01,
    diversity: float = 1e-4,
    groups: int = 10,
    levels: int = 4,
    codes: int = 256,
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
    """Fit an RQ-VAE with two more losses (Wang et al., CIKM 2024, sec. 3.2), over the other blocks of `vectors`.

    `collaborative`: which block of `vectors` holds collaborative vectors. `alignment`: weight of the in-batch
    cross-entropy between an item's quantised and collaborative vector; `diversity`: weight of the loss that draws a code
    to another one of its group and away from the rest, `groups` balanced groups a level. Codes have as many dimensions as the collaborative vectors. Other keys: see `rq_vae`.
    """
    blocks = len(vectors.blocks)
    if blocks < 2 or not -blocks <= collaborative < blocks:
        raise ValueError(
            f"`index`: LETTER needs item vectors of two sources, content and collaborative; `vectors` has {blocks} and "
            f"`collaborative` is {collaborative}. Add `sasrec` or `from_file`."
        )
    at = collaborative % blocks
    others = [i for i in range(blocks) if i != at]
    content, theirs = vectors.only(others).joined(), vectors.only([at]).joined()
    settings = RqVaeSettings(
        levels, codes, theirs.shape[1], tuple(hidden), epochs, batch, learning_rate, weight_decay, commitment, sinkhorn
    )
    extra = CollaborativeLosses(torch.from_numpy(theirs), alignment, diversity, groups=groups, seed=seed)
    fitted = train_rq_vae(content, settings, seed=seed, extra=extra, device=device)
    return index_of(split, vectors, fitted, settings, repair, blocks=others, complete=complete)


class CollaborativeLosses:
    """LETTER's two losses beside collaborative vectors `theirs` (items, dimensions). Codes are grouped anew every `again`
    steps."""

    def __init__(
        self, theirs: torch.Tensor, alignment: float, diversity: float, *, groups: int, seed: int, again: int = 200
    ) -> None:
        self._theirs, self._alignment, self._diversity = theirs, alignment, diversity
        self._count, self._seed, self._again, self._steps = groups, seed, again, 0
        self._group: list[torch.Tensor] = []

    def __call__(self, model: RqVae, rows: torch.Tensor, quantised: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        if self._steps % self._again == 0:
            self._group = [self._grouped(book) for book in model.books]
        self._steps += 1
        theirs = self._theirs.to(quantised.device)[rows.to(quantised.device)]
        own = torch.arange(len(rows), device=quantised.device)
        loss = self._alignment * functional.cross_entropy(quantised @ theirs.T, own)
        if self._diversity:
            for level, book in enumerate(model.books):
                loss = loss + self._diversity * _diverse(book, codes[:, level], self._group[level])
        return loss

    def _grouped(self, book: torch.Tensor) -> torch.Tensor:
        groups = min(self._count, len(book))
        labels, _ = balanced_clusters(book.detach().cpu().numpy(), groups, rounds=5, seed=self._seed)
        return torch.from_numpy(labels.astype(np.int64)).to(book.device)


def _diverse(book: torch.Tensor, chosen: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of picking, among all other codes, a random one of the same group (LETTER, eq. 5)."""
    scores = book[chosen] @ book.T  # (B, codes)
    own = functional.one_hot(chosen, len(book)).bool()
    scores = scores.masked_fill(own, -torch.inf)
    same = (group[chosen][:, None] == group[None]) & ~own
    has = same.any(1)
    if not has.any():
        return scores.new_zeros(())
    other = torch.multinomial(same[has].float(), 1)[:, 0]
    return functional.cross_entropy(scores[has], other)
