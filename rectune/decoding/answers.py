"""Fixed answers: how likely is each of a few completions after a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rectune.decoding.body import Body
from rectune.decoding.encoded_prompts import start_tree
from rectune.decoding.padding import left_pad, positions
from rectune.decoding.prompt_tree import PromptTree

_SHARE = 0.5  # prompts stand in one sequence where they have at least this much of the longest in common


def group_prompts(prompts: Sequence[Sequence[int]], *, most: int) -> list[list[int]]:
    """Rows whose prompts begin alike (a user's history before several candidates), to be scored in one sequence.

    Returns lists of row numbers; a group's sequence holds at most `most` tokens, unless it has one row.
    """
    groups: list[list[int]] = []
    shared = tokens = longest = 0
    for row in sorted(range(len(prompts)), key=lambda i: list(prompts[i])):
        prompt = prompts[row]
        if groups:
            same, long = min(_common(prompts[groups[-1][0]], prompt), shared), max(longest, len(prompt))
            if same >= _SHARE * long and tokens + len(prompt) - len(groups[-1]) * same <= most:
                groups[-1].append(row)
                shared, longest, tokens = same, long, tokens + len(prompt)
                continue
        groups.append([row])
        shared, longest, tokens = len(prompt) - 1, len(prompt), len(prompt)
    return groups


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two prompts share at their beginning, their last token not counted."""
    most = min(len(a), len(b)) - 1
    return next((i for i in range(most) if a[i] != b[i]), most)


def grouped_log_probabilities(
    body: Body, groups: Sequence[Sequence[Sequence[int]]], answers: Sequence[Sequence[int]], *, pad: int
) -> list[NDArray[np.float64]]:
    """Log-probability of each answer after each prompt, over the full vocabulary; for each group (prompts, answers).

    Prompts of a group share their beginning, which is forwarded once for all of them; answers share the prompt.
    """
    if max(map(len, groups)) == 1 or body.encoder is not None:
        flat = [prompt for group in groups for prompt in group]
        tree = start_tree(body, flat, pad=pad)
        found = _score(body, tree, tree.last[:, None], None, answers)[:, 0]
        return np.split(found, np.cumsum([len(group) for group in groups])[:-1])
    if min(map(len, groups)) == 1:
        parts = [[group for group in groups if (len(group) > 1) == many] for many in (False, True)]
        alone, together = (iter(grouped_log_probabilities(body, part, answers, pad=pad)) for part in parts)
        return [next(together if len(group) > 1 else alone) for group in groups]
    shared = [_shared(group) for group in groups]
    tree = PromptTree(body, [group[0][:n] for group, n in zip(groups, shared, strict=True)], pad=pad)
    suffixes = [[prompt[n:] for prompt in group] for group, n in zip(groups, shared, strict=True)]
    hidden, slots, lengths = tree.branch(suffixes)
    found = _score(body, tree, hidden, (slots, lengths), answers)
    return [rows[: len(group)] for rows, group in zip(found, groups, strict=True)]


def _shared(group: Sequence[Sequence[int]]) -> int:
    return min(_common(group[0], prompt) for prompt in group)


def _score(
    body: Body,
    tree: Any,
    hidden: torch.Tensor,
    branches: tuple[torch.Tensor, torch.Tensor] | None,
    answers: Sequence[Sequence[int]],
) -> NDArray[np.float64]:
    """Sum the log-probabilities of each answer's tokens after `hidden` (B, C, width); shape (B, C, answers).

    `branches`: slot and length of what stands between the tree's prompt and the answer, (B, C) each.
    """
    rows, count = hidden.shape[:2]
    states: dict[tuple[int, ...], torch.Tensor] = {(): hidden}
    slots, lengths = branches if branches is not None else (torch.full((rows, count), -1, device=hidden.device), 0)
    places: dict[tuple[int, ...], torch.Tensor] = {(): slots}
    every = sorted({tuple(answer[:n]) for answer in answers for n in range(1, len(answer))}, key=lambda p: (len(p), p))
    for depth in range(1, max(map(len, answers))):
        wave = [prefix for prefix in every if len(prefix) == depth]
        tokens = torch.tensor([prefix[-1] for prefix in wave], device=hidden.device).repeat(rows, count)
        parents = torch.stack([places[prefix[:-1]] for prefix in wave], 2).flatten(1)
        at = lengths + depth if isinstance(lengths, int) else lengths.repeat_interleave(len(wave), 1) + depth
        new, slot = tree.extend(tokens, parents, at, tokens.numel())
        for i, prefix in enumerate(wave):
            states[prefix], places[prefix] = new[:, i :: len(wave)], slot[:, i :: len(wave)]
    total = {prefix: body.head.log_normaliser(state) for prefix, state in states.items()}
    columns = []
    for answer in answers:
        steps = [(tuple(answer[:n]), token) for n, token in enumerate(answer)]
        parts = [
            body.head.logits(states[prefix], torch.tensor([token], device=hidden.device))[..., 0] - total[prefix]
            for prefix, token in steps
        ]
        columns.append(torch.stack(parts).double().sum(0))
    return np.asarray(torch.stack(columns, -1).cpu().numpy())


@torch.no_grad()
def answer_log_probabilities(
    model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], *, pad: int
) -> NDArray[np.float64]:
    """The same by plain forward passes of the whole model, one an answer: for models that the search cannot serve."""
    columns = []
    for answer in answers:
        ids, mask = left_pad([[*prompt, *answer] for prompt in prompts], pad, model.device)
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions(mask), logits_to_keep=len(answer) + 1)
        logp = out.logits[:, -len(answer) - 1 : -1].double().log_softmax(-1)
        columns.append(logp.gather(-1, ids[:, -len(answer) :, None])[..., 0].sum(1).cpu().numpy())
    return np.stack(columns, axis=1)


Normaliser = Literal["ratio", "tallrec"]


def one_begins_another(answers: Sequence[Sequence[int]]) -> bool:
    """Whether an answer has the tokens with which a longer one begins, such as '1' and '10'."""
    return any(
        len(a) < len(b) and tuple(b[: len(a)]) == tuple(a)
        for i, a in enumerate(answers)
        for b in (*answers[:i], *answers[i + 1 :])
    )


def distinct_answers(answers: Sequence[Sequence[int]]) -> None:
    """Raise ValueError when two answers have the same tokens, or one those with which another begins: it would always be the
    more likely one."""
    if len({tuple(answer) for answer in answers}) < len(answers):
        raise ValueError(
            f"the answers tokenise to {[list(a) for a in answers]}; two of them are the same for this tokenizer. Word the "
            "template's completions otherwise."
        )
    if one_begins_another(answers):
        raise ValueError(
            f"the answers tokenise to {[list(a) for a in answers]}, and one is the beginning of another, so their chances can't "
            "be compared. Remove `{% set end = false %}` from the template and train again, or word its completions otherwise."
        )


def first_tokens(answers: Sequence[Sequence[int]]) -> list[list[int]]:
    """The first token of each answer, all that `normaliser: tallrec` reads. Raises ValueError where two share it."""
    firsts = [list(answer[:1]) for answer in answers]
    if len({tuple(first) for first in firsts}) < len(firsts):
        raise ValueError(
            f"`rank.normaliser: tallrec` reads the first token of an answer only, and answers share theirs ({firsts}). Use "
            "`rank.normaliser: ratio`, which reads whole answers."
        )
    return firsts


def choice_probabilities(
    logp: NDArray[np.float64], of: Sequence[int] | None = None, *, normaliser: Normaliser = "ratio"
) -> NDArray[np.float64]:
    """From log-probabilities of completions (rows, completions) to chances of answers (rows, answers).

    `of`: which answer each completion is a way to write (default: each is one of its own); their probabilities are added.
    'ratio': p(a) / sum of p. 'tallrec': exp(p(a)) / sum of exp(p), softmax of what are probabilities already, as the
    evaluation of Bao et al. (RecSys 2023) has it; for two answers 1 / (1 + exp(p(no) - p(yes))).
    """
    which = np.arange(logp.shape[1]) if of is None else np.asarray(of)
    if normaliser == "tallrec":
        scores = np.stack([np.exp(logp[:, which == a]).sum(1) for a in range(which.max() + 1)], axis=1)
    else:
        top = logp.max(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            scores = np.log(
                np.stack([np.exp(logp - top)[:, which == a].sum(1) for a in range(which.max() + 1)], axis=1)
            )
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
