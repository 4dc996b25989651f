"""Groups of items that a model in training names after prompts: what reinforcement learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rectune.decoding.beam import Scores, Search
from rectune.decoding.body import Body, take_apart
from rectune.decoding.conformance import check_body
from rectune.decoding.prompt_tree import PromptTree, shared_prefix
from rectune.decoding.sampling import DIVERGED, draw_independent, draw_without_replacement
from rectune.decoding.shelf import Shelf
from rectune.decoding.table import Table
from rectune.decoding.trie import Trie

_WIDEST = 2**21  # scored children in one batch; a draw takes about 100 bytes each
How = Literal["beams", "independent", "without_replacement"]


@dataclass(frozen=True)
class RolledOut:
    """A group of items for each prompt, all (prompts, each). `items`: -1 where the catalogue has no more. `log_probs`: of the distribution that
    was drawn from, over the catalogue; of beams the search's scores. `within`: log of the chance that an item is in its group, where the draw
    has one, else 0."""

    items: NDArray[np.int32]
    log_probs: NDArray[np.float32]
    within: NDArray[np.float32]


class Rollouts:
    """Rolls out any model that the search can serve, a decoder, and remembers that it could: the weights may change between calls.

    `scores`: of beams, as in `Engine`; draws are always over the catalogue. At most `batch_tokens` tokens are in memory at a time.
    Raises ValueError where the search cannot serve the model.
    """

    def __init__(self, trie: Trie, *, pad: int, scores: Scores, batch_tokens: int) -> None:
        self.trie, self._pad, self._scores, self._batch_tokens = trie, pad, scores, batch_tokens
        self._table: Table | None = None
        self._names = trie.names()

    def table(self, device: torch.device) -> Table:
        """The trie on a device."""
        if self._table is None or self._table.first.device != device:
            self._table = Table(self.trie, device)
        return self._table

    def name(self, item: int) -> list[int]:
        """Token ids of an item's name."""
        tokens: list[int] = self._names[item][self._names[item] >= 0].tolist()
        return tokens

    def beginning(self, target: int, codes: int) -> NDArray[np.int64]:
        """The items whose names begin with the first `codes` tokens of a target's."""
        same = (self._names[:, :codes] == self._names[target, :codes]).all(1)
        return np.flatnonzero(same)

    @torch.no_grad()
    def draw(
        self, model: Any, prompts: Sequence[Sequence[int]], *, how: How, each: int, seeds: Sequence[int], temperature: float = 1.0,
        only: Sequence[Sequence[int]] | None = None,
    ) -> RolledOut:  # fmt: skip
        """`each` items for each prompt, those in `only` alone where it is given: the best ones of a beam, independent draws, or
        draws without replacement. Of `only` each code is drawn among those that lead to one of them: where they are all items that
        begin alike, from the catalogue's distribution given that. A prompt's items depend on the model, the prompt and its seed, one of
        `seeds` (whole numbers below 2**63), and not on what is drawn beside it."""
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many seeds, and there are {len(seeds)}.")
        body = self._body(model, prompts)
        prefix = shared_prefix(body, prompts)
        longest = max(map(len, prompts)) + each * self.trie.depth
        step = max(1, min(self._batch_tokens // longest, _WIDEST // self.trie.widest(each)))
        parts = []
        for at in range(0, len(prompts), step):
            shelf = Shelf(only=None if only is None else only[at : at + step])
            tree = PromptTree(body, prompts[at : at + step], pad=self._pad, prefix=prefix)
            given = torch.tensor(seeds[at : at + step], dtype=torch.long, device=body.device)
            parts.append(self._part(body, tree, how, each, shelf, temperature, given))
        return RolledOut(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(RolledOut)))

    def _part(
        self, body: Body, tree: PromptTree, how: How, each: int, shelf: Shelf, temperature: float, seeds: torch.Tensor
    ) -> RolledOut:  # fmt: skip
        wide = {"beams": max(each, 2), "independent": each, "without_replacement": each + 1}[how]
        scores: Scores = self._scores if how == "beams" else "catalogue"
        search = Search(body, self.table(body.device), tree, beams=wide, scores=scores, shelf=shelf, alive=None)
        within = None
        if how == "beams":
            search.run()
            leaf, logp = search.leaf[:, :each], search.score[:, :each]
        elif how == "independent":
            leaf, logp = draw_independent(search, temperature=temperature, seeds=seeds)
        else:
            leaf, logp, within = draw_without_replacement(search, temperature=temperature, seeds=seeds)
        if torch.isnan(logp).any():
            raise ValueError(DIVERGED)
        leaf = leaf.masked_fill(logp == -torch.inf, -1)
        within = torch.zeros_like(logp) if within is None else within
        return RolledOut(self.trie.item_of(leaf.cpu().numpy()), logp.cpu().numpy(), within.cpu().numpy())

    def _body(self, model: Any, prompts: Sequence[Sequence[int]]) -> Body:
        body = take_apart(model)  # anew: it may hold copies of weights
        if body.encoder is not None:
            raise ValueError("rollouts are for models that go on with their prompt, and this is an encoder-decoder.")
        if self._table is None:
            check_body(model, body, tokens=np.concatenate(self.trie.tokens), pad=self._pad)
        longest = max(map(len, prompts)) + self.trie.depth
        if body.reach is not None and longest > body.reach:
            raise ValueError(
                f"the model's attention looks back {body.reach} tokens and the longest prompt with its answer has {longest}. Lower `max_length`."
            )
        return body
