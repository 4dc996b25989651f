"""Is a model still the one that was trained: its logits after a few tokens, kept beside its weights.

Logits are calculated in float32 (rectune/model/float32.py). The first position is left out: attention parks there what it does not
need, in values so large that half precision rounds them by whole units (Sun et al., 2024, "Massive activations in large language
models").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from rectune.model.float32 import HALF, in_float32
from rectune.prompts.encoder import Encoder

PROBE = "probe.safetensors"


class Share(NamedTuple):
    """How far logits may be off: the difference, of their root mean square, and the largest difference, of the largest one. What is wrong with a few tokens shows
    in the second alone."""

    difference: float
    largest: float


EXACT = Share(1e-5, 1e-5)  # float32 sums in another order
ROUNDED = Share(0.05, 0.05)  # on another device, or where the whole model has to be calculated in half precision
ROUNDINGS = 4  # times what rounding every weight once does: an adapter's product and sum are rounded, too


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


def probe_ids(folder: Path) -> torch.Tensor:
    """The token ids of the probe that is kept in a folder, (1, length)."""
    return load_file(folder / PROBE)["ids"]


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


def refuse(found: dict[str, float], share: Share, what: str) -> None:
    """Raise ValueError where logits are further off than `share`."""
    if beyond := _beyond(found, share):
        off, size, part, _ = beyond
        raise ValueError(
            f"{what} changed the logits of the run's probe by {off:.3g}, and {part * size:.3g} is what rounding "
            "explains. Nothing was done with it; the versions of peft, transformers and torch may not be those of the training."
        )


def _beyond(found: dict[str, float], share: Share) -> tuple[float, float, float, str] | None:
    """What is beyond its share: how far off, beside what (1 for less), which share, and what is said of the numbers; None where nothing is."""
    for off, size, part, said in (
        (found["difference"], found["logits"], share.difference, "root mean squares"),
        (found["largest_difference"], found["largest_logit"], share.largest, "the largest"),
    ):
        size = max(size, 1.0)
        if not off <= part * size:
            return off, size, part, said
    return None


def rounding(model: Any, ids: torch.Tensor, logits: torch.Tensor) -> Share:
    """The share of `logits`, those of `model` after `ids`, by which weights that were rounded on the way may move them."""
    if model.dtype not in HALF:
        return EXACT
    moved = compared(probe_logits(model, ids, rounded=True), logits)
    share = Share(
        ROUNDINGS * moved["difference"] / max(moved["logits"], 1.0),
        ROUNDINGS * moved["largest_difference"] / max(moved["largest_logit"], 1.0),
    )
    return share if share.difference > 0 else ROUNDED  # nothing moved: not calculated in float32


def check_reloaded(model: Any, folder: Path) -> dict[str, float]:
    """How far the logits of a reloaded model are from those at the end of its training.

    Raises ValueError when they differ by more than another device or thread count explains.
    """
    found = probed(model, folder)
    if beyond := _beyond(found, ROUNDED):
        off, size, _, said = beyond
        raise ValueError(
            f"new-token audit: the model in {folder} gives other logits than at the end of its training (difference "
            f"{off:.3g} beside {size:.3g}, {said}). Its base is another one, or its files are damaged."
        )
    return found
