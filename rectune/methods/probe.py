"""Is a model still the one that was trained: its logits after a few tokens, kept beside its weights.

Logits are calculated in float32 (rectune/model/float32.py). The first position is left out: attention parks there what it does not
need, in values so large that half precision rounds them by whole units (Sun et al., 2024, "Massive activations in large language
models").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from rectune.model.float32 import HALF, in_float32
from rectune.prompts.encoder import Encoder

PROBE = "probe.safetensors"
EXACT = 1e-5  # of the logits' root mean square: float32 sums in another order
ROUNDED = 0.05  # the same, on another device or where the whole model has to be calculated in half precision
ROUNDINGS = (
    4  # as much as rounding every weight moves them, times this: an adapter's product, sum and weights are rounded each
)


@torch.no_grad()
def probe_logits(model: Any, ids: torch.Tensor, *, rounded: bool = False) -> torch.Tensor:
    """Logits after a short fixed sequence, float32 on the CPU, shape (length, vocabulary); `rounded` as in `in_float32`."""
    was_training = model.training
    inputs = {"input_ids": ids.to(model.device)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    model.eval()
    logits = in_float32(model, lambda: model(**inputs).logits[0].float().cpu(), rounded=rounded)
    model.train(was_training)
    return torch.as_tensor(logits)


def save_probe(model: Any, encoder: Encoder, folder: Path) -> None:
    """Keep the logits of a short sequence of text and new tokens beside the weights, to compare after reloading."""
    ids = encoder.text_ids("What comes next?")[:8] + encoder.code_ids[:: max(1, len(encoder.code_ids) // 8)][:8]
    write_probe(model, torch.tensor([ids]), folder)


def write_probe(model: Any, ids: torch.Tensor, folder: Path) -> None:
    """Keep the logits after `ids`, (1, length), in a folder."""
    save_file({"ids": ids, "logits": probe_logits(model, ids)}, folder / PROBE)


def probed(model: Any, folder: Path) -> dict[str, float]:
    """How far the logits of a model are from those that are kept in a folder, see `compared`."""
    probe = load_file(folder / PROBE)
    return compared(probe_logits(model, probe["ids"]), probe["logits"])


def compared(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, float]:
    """Largest difference of two sets of logits, (length, vocabulary), the largest of theirs, and both as root mean squares, in which
    rounding averages out and what is wrong does not."""
    ours, theirs = ours[1:].double(), theirs[1:].double()
    return {
        "largest_difference": float((ours - theirs).abs().max()), "largest_logit": float(theirs.abs().max()),
        "difference": float((ours - theirs).square().mean().sqrt()), "logits": float(theirs.square().mean().sqrt()),
    }  # fmt: skip


def refuse(found: dict[str, float], share: float, what: str) -> None:
    """Raise ValueError when a difference is above `share` of the logits (of 1, where they are smaller), both as root mean squares."""
    most = share * max(found["logits"], 1.0)
    if not found["difference"] <= most:
        raise ValueError(
            f"{what} changed the logits of the run's probe by {found['difference']:.3g}, and {most:.3g} is what rounding "
            "explains. Nothing was done with it; the versions of peft, transformers and torch may not be those of the training."
        )


def rounding(model: Any, ids: torch.Tensor, logits: torch.Tensor) -> float:
    """The share of `logits`, those of `model` after `ids`, by which weights that were rounded on the way may move them, for `refuse`."""
    if model.dtype not in HALF:
        return EXACT
    moved = compared(probe_logits(model, ids, rounded=True), logits)
    share = ROUNDINGS * moved["difference"] / max(moved["logits"], 1.0)
    return share if share > 0 else ROUNDED  # nothing moved: not calculated in float32


def check_reloaded(model: Any, folder: Path) -> dict[str, float]:
    """How far the logits of a reloaded model are from those at the end of its training.

    Raises ValueError when they differ by more than another device or thread count explains.
    """
    found = probed(model, folder)
    if not found["difference"] <= ROUNDED * max(found["logits"], 1.0):
        raise ValueError(
            f"new-token audit: the model in {folder} gives other logits than at the end of its training (difference "
            f"{found['difference']:.3g} beside {found['logits']:.3g}, root mean squares). Its base is another one, or its files are damaged."
        )
    return found
