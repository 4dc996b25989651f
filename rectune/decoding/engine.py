"""The engine: a model and a trie in, ranked lists of real items out, by the fastest way that is known to be right."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rectune.decoding.answers import answer_log_probabilities, grouped_log_probabilities
from rectune.decoding.beam import Scores, Search
from rectune.decoding.body import Body, Counts, take_apart
from rectune.decoding.conformance import check_body
from rectune.decoding.encoded_prompts import start_tree
from rectune.decoding.exact import complete
from rectune.decoding.prompt_tree import Prefix, shared_prefix
from rectune.decoding.ranking import Ranking
from rectune.decoding.reference import reference_search
from rectune.decoding.shelf import ALL, Shelf
from rectune.decoding.table import Table
from rectune.decoding.trie import Trie
from rectune.runtime.told import ToldOnce


class Engine:
    """Ranks the names of a trie after prompts, with any causal language model of transformers, or a T5.

    `scores`: 'full' sums log-probabilities over the vocabulary, 'catalogue' normalises over what the trie allows, so
    that all items sum to 1. `end`: the token that ends names, or None. `exact`: complete every list until it is
    proven, with at most `exact_nodes` more forwarded prefixes a row. A model that the search cannot serve is ranked by
    `generate` instead, with one warning, or a ValueError under `exact`.
    """

    def __init__(
        self,
        model: Any,
        trie: Trie,
        *,
        scores: Scores,
        end: int | None,
        pad: int,
        exact: bool = False,
        exact_nodes: int = 1000,
    ) -> None:
        self._model, self._trie, self._scores = model, trie, scores
        self._end, self._pad, self._exact, self._exact_nodes = end, pad, exact, exact_nodes
        self._warned = False
        self._last: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
        self._body, why_not = _usable(model, np.concatenate(trie.tokens), pad)
        if why_not:
            self._fall_back(why_not)
        self._table = Table(trie, self._body.device) if self._body is not None else None

    @property
    def counts(self) -> Counts:
        """What has been forwarded so far; zeros where `generate` ranks."""
        return self._body.counts if self._body is not None else Counts()

    @torch.no_grad()
    def prefix(self, prompts: Sequence[Sequence[int]]) -> Prefix | None:
        """What the prompts of many batches begin with, forwarded once, for `search`."""
        return shared_prefix(self._body, prompts) if self._body is not None else None

    @torch.no_grad()
    def search(
        self, prompts: Sequence[Sequence[int]], *, beams: int, shelf: Shelf = ALL, prefix: Prefix | None = None
    ) -> Ranking:
        """The best `beams` items for each prompt (token ids), those that the shelf rules out left aside; `row` counts prompts.

        Scores of the others don't depend on what is left aside.
        """
        if self._body is None or not self._reaches(self._body, prompts):
            if shelf.prior is not None:
                raise ValueError(
                    "`rank.prior`: `generate` ranks this model, and it takes no prior. Leave `rank.prior` out."
                )
            found = reference_search(
                self._model, self._trie, prompts, beams=beams, scores=self._scores, end=self._end, pad=self._pad, shelf=shelf
            )  # fmt: skip
        else:
            found = self._search(self._body, prompts, max(beams, 2), shelf, prefix)  # as `generate`, which needs two
        _check_numbers(found.scores)
        return Ranking(found.row, found.items[:, :beams], found.scores[:, :beams], found.exact)

    def _search(
        self, body: Body, prompts: Sequence[Sequence[int]], beams: int, shelf: Shelf, prefix: Prefix | None
    ) -> Ranking:
        tree = start_tree(body, prompts, pad=self._pad, prefix=prefix)
        assert self._table is not None
        alive = self._living(shelf.allowed)
        search = Search(body, self._table, tree, beams=beams, scores=self._scores, shelf=shelf, alive=alive)
        search.run(keep=self._exact)
        if self._exact:
            complete(search, budget=self._exact_nodes)
        return search.found()

    def _living(self, allowed: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """The nodes above what all rows may list, kept for the next batch."""
        if allowed is None:
            return None
        if self._last is None or self._last[0] is not allowed:
            self._last = (allowed, self._trie.living(allowed))
        return self._last[1]

    def _reaches(self, body: Body, prompts: Sequence[Sequence[int]]) -> bool:
        longest = max(map(len, prompts)) + self._trie.depth
        if body.reach is None or longest <= body.reach:
            return True
        self._fall_back(
            f"its attention looks back {body.reach} tokens and the longest prompt with its answer has {longest}"
        )
        return False

    def _fall_back(self, why: str) -> None:
        if self._exact:
            raise ValueError(
                f"`rank.exact`: this model cannot be searched exactly: {why}. Otherwise set `rank.exact: false`."
            )
        if not self._warned:
            self._warned = True
            warnings.warn(f"ranking falls back to `generate`, which is slower: {why}.", ToldOnce, stacklevel=3)


class AnswerEngine:
    """How likely each of a few completions is after a prompt. `answers`: token ids without an end token."""

    def __init__(self, model: Any, answers: Sequence[Sequence[int]], *, pad: int) -> None:
        self._model, self._answers, self._pad = model, answers, pad
        self._body, why_not = _usable(model, np.array([token for answer in answers for token in answer]), pad)
        if why_not:
            warnings.warn(f"answers take a forward pass of the whole model each: {why_not}.", stacklevel=3)

    @property
    def counts(self) -> Counts:
        """What has been forwarded so far; zeros where whole forward passes are taken."""
        return self._body.counts if self._body is not None else Counts()

    @torch.no_grad()
    def score(self, groups: Sequence[Sequence[Sequence[int]]]) -> list[NDArray[np.float64]]:
        """Log-probabilities over the full vocabulary, for each group of prompts (see `group_prompts`) (prompts, answers)."""
        longest = max(len(prompt) for group in groups for prompt in group) + max(map(len, self._answers))
        if self._body is not None and (self._body.reach is None or longest <= self._body.reach):
            found = grouped_log_probabilities(self._body, groups, self._answers, pad=self._pad)
        else:
            found = [answer_log_probabilities(self._model, group, self._answers, pad=self._pad) for group in groups]
        _check_numbers(np.concatenate(found))
        return found


def _check_numbers(scores: NDArray[np.floating]) -> None:
    if np.isnan(scores).any():
        raise ValueError(
            "the model's scores are not numbers (NaN). Its weights are damaged, or half precision overflows: try "
            "`model.dtype: float32`."
        )


def _usable(model: Any, tokens: NDArray[np.int64], pad: int) -> tuple[Body | None, str]:
    """The model taken apart and checked, or None and why that cannot be."""
    try:
        body = take_apart(model)
        check_body(model, body, tokens=tokens, pad=pad)
    except ValueError as error:
        return None, str(error)
    return body, ""
