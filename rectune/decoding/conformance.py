"""A check on the model at hand: does its attention keep beams apart, and does its head give its own logits?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rectune.decoding.body import Body, Counts
from rectune.decoding.encoded_prompts import start_tree
from rectune.model.float32 import in_float32

_BESIDE = 14  # tokens beside the two that are compared: a bias by place in the cache then shows


@torch.no_grad()
def check_body(model: Any, body: Body, *, tokens: NDArray[np.int64], pad: int) -> None:
    """Decode two short names in one sequence, beside plain forward passes of each. Raises ValueError where they differ
    by more than rounding, measured against what another first token changes.

    `tokens`: token ids that names are made of. Costs a few short forward passes. A model in half precision is calculated
    in float32 for it: on prompts of a few tokens, rounding alone can change its logits as much as a fault does.
    """
    wrong, effect, allowed = in_float32(model, lambda: _differences(model, body, tokens=tokens, pad=pad))
    body.counts = Counts()
    if np.isfinite(effect) and not wrong <= allowed:  # otherwise the search itself reports scores that are no numbers
        raise ValueError(
            f"logits of two beams in one sequence are off by {wrong:.2g} (another beam's token changes them by {effect:.2g})"
        )


def _differences(
    model: Any, body: Body, *, tokens: NDArray[np.int64], pad: int
) -> tuple[float, float, float]:  # fmt: skip
    """By how much the search's logits are off, how much another first token changes them, how much is rounding."""
    picked = np.unique(tokens)[:: max(1, len(np.unique(tokens)) // 5)][:5].tolist()
    a, b, c, d = (picked * 4)[:4]
    prompts = [[c, d, a], [b]]
    device = body.device
    try:
        tree = start_tree(body, prompts, pad=pad)
        first = torch.tensor([[a, b, *[d] * _BESIDE]] * 2, device=device)
        _, slots = tree.extend(first, torch.full_like(first, -1), 1, first.numel())
        hidden, _ = tree.extend(torch.full_like(first[:, :2], c), slots[:, :2], 2, 4)
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(f"it does not run with a mask of its own for each beam ({error})") from error
    every = torch.arange(len(body.head.weight), device=device)
    found = body.head.logits(hidden, every)
    own = torch.stack([torch.stack([_plain(model, body, p, [x, c]) for x in (a, b)]) for p in prompts])
    effect = _size(own[:, 0] - own[:, 1])
    return _size(found - own), effect, max(0.01 * effect, 4 * torch.finfo(hidden.dtype).eps * _size(own))


def _size(logits: torch.Tensor) -> float:
    """Root mean square: rounding in half precision averages out, what is wrong does not."""
    return float(logits.double().square().mean().sqrt())


def _plain(model: Any, body: Body, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """The model's own logits after a prompt and an answer, (vocabulary,)."""
    if body.encoder is not None:
        ids = torch.tensor([prompt], device=body.device)
        decoder = torch.tensor([[body.start, *answer]], device=body.device)
        return torch.as_tensor(model(input_ids=ids, decoder_input_ids=decoder).logits[0, -1].float())
    ids = torch.tensor([[*prompt, *answer]], device=body.device)
    return torch.as_tensor(model(input_ids=ids, use_cache=False).logits[0, -1].float())
