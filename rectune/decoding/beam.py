"""Constrained beam search through transformers' `generate`: the reference that faster engines are compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rectune.decoding.trie import Trie

Scores = Literal["full", "catalogue"]
_IMPOSSIBLE = -1e8  # `generate` starts unused beams at -1e9


def beam_search(
    model: Any,
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int,
    scores: Scores,
    end: int | None,
    pad: int,
    hidden: Sequence[Sequence[int]] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the items of the best `beams` names for each prompt, and their log-probabilities.

    `prompts`: token ids, one list a row. `scores`: 'full' sums log-probabilities over the vocabulary, 'catalogue'
    normalises over what the trie allows, so that all items sum to 1. `hidden`: items of each row that must not be
    listed; scores of the others don't change. Shapes (rows, beams): items int32, best first, -1 where there are
    fewer; scores float32. Ties are broken by item number.
    """
    asked, beams = beams, max(beams, 2)  # with one beam `generate` is greedy and gives no scores
    ids, mask = left_pad(prompts, pad, model.device)
    width = ids.shape[1]
    dead = [trie.dead_nodes(items) for items in hidden] if hidden is not None else [set[int]() for _ in prompts]
    steps = _TrieScores(trie, width, beams, normalise=scores == "catalogue", dead=dead)
    with torch.no_grad(), _generation_settings(model, beams=beams, length=trie.depth, end=end, pad=pad) as config:
        out = model.generate(
            ids,
            attention_mask=mask,
            past_key_values=_prefill(model, ids, mask, beams),
            generation_config=config,
            logits_processor=[steps],
        )
    totals = out.sequences_scores.float().cpu().numpy()
    tokens = out.sequences[:, width:].cpu().tolist()
    found = np.array([_item(trie, row, end) for row in tokens], dtype=np.int32)
    found[totals <= _IMPOSSIBLE] = -1
    items, values = _ordered(found.reshape(len(prompts), beams), totals.reshape(len(prompts), beams))
    return items[:, :asked], values[:, :asked]


def left_pad(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad prompts on the left. Returns ids and attention mask, both (rows, longest) int64."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask[i, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position of each token among the real ones, (rows, width)."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _prefill(model: Any, ids: torch.Tensor, mask: torch.Tensor, beams: int) -> Any:
    """The cache of all but the last prompt token, computed once a row and repeated for the beams."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if ids.shape[1] < 2:
        return cache
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


class _TrieScores:
    """A logits processor: log-probabilities of what the trie allows at each beam, -inf for everything else."""

    def __init__(self, trie: Trie, width: int, beams: int, *, normalise: bool, dead: Sequence[set[int]]) -> None:
        self._trie, self._width, self._beams = trie, width, beams
        self._normalise, self._dead = normalise, dead

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids` (rows x beams, length), `scores` (rows x beams, vocabulary) log-softmaxed."""
        out = torch.full_like(scores, -torch.inf)
        for beam, generated in enumerate(input_ids[:, self._width :].tolist()):
            node = self._trie.walk(generated)
            children = self._trie.children[node] if node >= 0 else {}
            if not children:  # a finished name, or a beam that was never alive
                continue
            allowed = torch.tensor(list(children), device=scores.device)
            values = scores[beam, allowed]
            if self._normalise:
                values = values - values.logsumexp(0)
            dead = self._dead[beam // self._beams]
            if dead:
                values = values.masked_fill(
                    torch.tensor([n in dead for n in children.values()], device=scores.device), -torch.inf
                )
            out[beam, allowed] = values
        return out


@contextlib.contextmanager
def _generation_settings(model: Any, *, beams: int, length: int, end: int | None, pad: int) -> Iterator[Any]:
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
        top_k=0,
        top_p=1.0,
        repetition_penalty=1.0,
        encoder_repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        remove_invalid_values=False,
        renormalize_logits=False,
        eos_token_id=end,
        pad_token_id=pad,
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


def _item(trie: Trie, tokens: list[int], end: int | None) -> int:
    if end is not None and end in tokens:
        tokens = tokens[: tokens.index(end) + 1]
    node = trie.walk(tokens)
    return int(trie.item[node]) if node >= 0 else -1


def _ordered(items: NDArray[np.int32], scores: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Sort each row by score, ties by item, missing items last."""
    scores = np.where(items >= 0, scores, -np.inf).astype(np.float32)
    order = np.lexsort((np.where(items >= 0, items, np.iinfo(np.int32).max), -scores), axis=-1)
    return np.take_along_axis(items, order, -1), np.take_along_axis(scores, order, -1)
