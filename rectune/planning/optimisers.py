"""What an optimiser keeps for each trained parameter, and what it makes while it updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_SMALLEST = 4096  # bitsandbytes keeps tensors of fewer values in 32 bits
_BLOCK = 256  # values that share a scale in its 8-bit states


def optimiser_bytes(name: str, parameters: Sequence[Any]) -> tuple[int, int]:
    """(bytes kept, most bytes made during an update) for transformers' `optim` names.

    Adam (Kingma & Ba, 2015) keeps two moments of the parameter's type; 8-bit Adam (Dettmers et al., 2022) two bytes and two
    float32 scales for 256 values; Adafactor (Shazeer & Stern, 2018, section 5, no first moment) a row and a column of float32.
    Raises ValueError for an optimiser whose state is not known.
    """
    sizes = [(p.numel(), p.element_size(), tuple(p.shape)) for p in parameters]
    largest = max((n * b for n, b, _ in sizes), default=0)
    if name in ("adamw_torch", "adamw_torch_fused", "adamw_apex_fused"):
        return sum(2 * n * b for n, b, _ in sizes), 0 if name.endswith("fused") else 2 * largest
    if name in ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"):
        return sum(2 * n + 8 * -(-n // _BLOCK) if n >= _SMALLEST else 8 * n for n, _, _ in sizes), 0
    if name in ("paged_adamw_32bit", "paged_adamw", "adamw_bnb_32bit"):
        return sum(8 * n for n, _, _ in sizes), 0
    if name == "adafactor":
        widest = max((n for n, _, _ in sizes), default=0)
        return sum(4 * _factored(shape) for _, _, shape in sizes), 8 * widest  # grad² and the update, float32
    if name in ("sgd", "lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit"):
        each = {"sgd": 0, "lion_32bit": 4, "paged_lion_32bit": 4}.get(name, 1)
        return sum(each * n for n, _, _ in sizes), 0
    raise ValueError(
        f"`optim`: what `{name}` keeps in memory is not known here. Known: adamw_torch_fused, adamw_torch, adamw_8bit, "
        "paged_adamw_8bit, paged_adamw_32bit, adafactor, lion_8bit, lion_32bit, sgd."
    )


def _factored(shape: tuple[int, ...]) -> int:
    """Values of Adafactor's second moment: row and column sums of a matrix, everything of a vector."""
    if len(shape) < 2:
        return shape[0] if shape else 1
    rest = 1
    for size in shape[:-2]:
        rest *= size
    return rest * (shape[-1] + shape[-2])
