"""Fixed answers: how likely is each of a few completions after a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rectune.decoding.beam import left_pad, positions


@torch.no_grad()
def answer_log_probabilities(
    model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], *, pad: int
) -> NDArray[np.float64]:
    """Log-probability of each answer after each prompt, over the full vocabulary; shape (rows, answers).

    Answers are token ids without an end token; where all are one token long, one forward pass scores them all.
    """
    if all(len(answer) == 1 for answer in answers):
        ids, mask = left_pad(prompts, pad, model.device)
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions(mask), logits_to_keep=1)
        logp = out.logits[:, -1].double().log_softmax(-1)
        return np.asarray(logp[:, [answer[0] for answer in answers]].cpu().numpy())
    columns = []
    for answer in answers:
        ids, mask = left_pad([[*prompt, *answer] for prompt in prompts], pad, model.device)
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions(mask), logits_to_keep=len(answer) + 1)
        logp = out.logits[:, -len(answer) - 1 : -1].double().log_softmax(-1)
        columns.append(logp.gather(-1, ids[:, -len(answer) :, None])[..., 0].sum(1).cpu().numpy())
    return np.stack(columns, axis=1)


def distinct_answers(answers: Sequence[Sequence[int]]) -> None:
    """Raise ValueError when two answers have the same tokens: their order would mean nothing."""
    if len({tuple(answer) for answer in answers}) < len(answers):
        raise ValueError(
            f"the answers tokenise to {[list(a) for a in answers]}; two of them are the same for this tokenizer."
        )


def choice_probabilities(logp: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalise over the answers: p(a) / sum of p; shape (rows, answers)."""
    shifted = np.exp(logp - logp.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
