"""Constrained beam search through transformers' `generate`: what the engine is compared with and falls back to."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rectune.decoding.beam import Scores
from rectune.decoding.body import keeps_keys_and_values
from rectune.decoding.padding import left_pad, positions
from rectune.decoding.ranking import Ranking
from rectune.decoding.shelf import ALL, Shelf
from rectune.decoding.trie import Trie

_IMPOSSIBLE = -1e8  # `generate` starts unused beams at -1e9


def reference_search(
    model: Any,
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int,
    scores: Scores,
    end: int | None,
    pad: int,
    shelf: Shelf = ALL,
) -> Ranking:
    """The items of the best `beams` names for each prompt, by `generate`; no list is certified.

    `prompts`: token ids, one list a row. `scores`: 'full' sums log-probabilities over the vocabulary, 'catalogue'
    normalises over what the trie allows, so that all items sum to 1. Items that may not be listed change no score.
    Ties are broken by leaf number.
    """
    asked, beams = beams, max(beams, 2)  # with one beam `generate` is greedy and gives no scores
    ids, mask = left_pad(prompts, pad, model.device)
    encoder = bool(model.config.is_encoder_decoder)
    width = 1 if encoder else ids.shape[1]
    steps = _TrieScores(trie, width, beams, normalise=scores == "catalogue", closed=_closed(trie, shelf, len(prompts)))
    options = {"past_key_values": _prefill(model, ids, mask, beams)} if _can_be_prefilled(model) else {}
    start = model.config.decoder_start_token_id if encoder else None
    with torch.no_grad(), _generation_settings(model, beams, trie.depth, end=end, pad=pad, start=start) as config:
        out = model.generate(ids, attention_mask=mask, generation_config=config, logits_processor=[steps], **options)
    totals = out.sequences_scores.float().cpu().numpy()
    tokens = out.sequences[:, width:].cpu().tolist()
    leaves = np.array([_leaf(trie, row, end) for row in tokens], dtype=np.int64)
    leaves[totals <= _IMPOSSIBLE] = -1
    return _ordered(trie, leaves.reshape(len(prompts), beams), totals.reshape(len(prompts), beams), asked)


def _can_be_prefilled(model: Any) -> bool:
    takes = inspect.signature(model.forward).parameters
    plain = keeps_keys_and_values(model) and not model.config.is_encoder_decoder
    return plain and {"past_key_values", "position_ids"} <= set(takes)


def _prefill(model: Any, ids: torch.Tensor, mask: torch.Tensor, beams: int) -> Any:
    """The cache of all but the last prompt token, computed once a row and repeated for the beams."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if ids.shape[1] < 2:
        return cache
    with torch.no_grad():
        model(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions(mask[:, :-1]),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    cache.batch_repeat_interleave(beams)
    return cache


def _closed(trie: Trie, shelf: Shelf, rows: int) -> list[set[int]]:
    """For each row the nodes that may not be entered."""
    closed: list[set[int]] = [set() for _ in range(rows)]
    alive = None if shelf.allowed is None else trie.living(shelf.allowed)
    if alive is not None:
        closed = [set(np.flatnonzero(~alive).tolist()) for _ in range(rows)]
    if shelf.hidden is not None:
        for level in trie.emptied(shelf.hidden, alive):
            for row, nodes in enumerate(level.tolist()):
                closed[row].update(nodes)
    if shelf.only is not None:
        whole = set(range(1, len(trie.codes)))
        for row, items in enumerate(shelf.only):
            closed[row] |= whole - {int(n) for level in trie.paths([items]) for n in level.ravel()}
    return closed


class _TrieScores:
    """A logits processor: log-probabilities of what the trie allows at each beam, -inf for everything else."""

    def __init__(self, trie: Trie, width: int, beams: int, *, normalise: bool, closed: Sequence[set[int]]) -> None:
        self._trie, self._width, self._beams = trie, width, beams
        self._normalise, self._closed = normalise, closed

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids` (rows x beams, length), `scores` (rows x beams, vocabulary) log-softmaxed."""
        out = torch.full_like(scores, -torch.inf)
        for beam, generated in enumerate(input_ids[:, self._width :].tolist()):
            node = self._trie.walk(generated)
            children = self._trie.children(node) if node >= 0 else {}
            if not children:  # a finished name, or a beam that was never alive
                continue
            allowed = torch.tensor(list(children), device=scores.device)
            values = scores[beam, allowed]
            if self._normalise:
                values = values - values.logsumexp(0)
            closed = self._closed[beam // self._beams]
            shut = torch.tensor([n in closed for n in children.values()], device=scores.device)
            out[beam, allowed] = values.masked_fill(shut, -torch.inf)
        return out


@contextlib.contextmanager
def _generation_settings(
    model: Any, beams: int, length: int, *, end: int | None, pad: int, start: int | None
) -> Iterator[Any]:
    """Replace the model's generation settings while ranking: nothing that came with a checkpoint may matter."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=length,
        min_new_tokens=0,
        do_sample=False,
        length_penalty=0.0,
        early_stopping=False,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        repetition_penalty=1.0,
        encoder_repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        remove_invalid_values=False,
        renormalize_logits=False,
        eos_token_id=end,
        pad_token_id=pad,
        decoder_start_token_id=start,
        use_cache=True,
        return_dict_in_generate=True,
        output_scores=True,
    )
    inherited = model.generation_config
    model.generation_config = config
    try:
        yield config
    finally:
        model.generation_config = inherited


def _leaf(trie: Trie, tokens: list[int], end: int | None) -> int:
    if end is not None and end in tokens:
        tokens = tokens[: tokens.index(end) + 1]
    node = trie.walk(tokens)
    return node if node >= 0 and bool(trie.is_leaf(np.array(node))) else -1


def _ordered(trie: Trie, leaves: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Ranking:
    """Sort each row by score, ties by leaf, missing items last; keep the first `k`."""
    scores = np.where(leaves >= 0, scores, -np.inf).astype(np.float32)
    order = np.lexsort((np.where(leaves >= 0, leaves, np.iinfo(np.int64).max), -scores), axis=-1)[:, :k]
    items = trie.item_of(np.take_along_axis(leaves, order, -1))
    return Ranking(
        np.arange(len(leaves)), items, np.take_along_axis(scores, order, -1), np.zeros(len(leaves), dtype=bool)
    )
