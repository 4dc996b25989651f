"""Graphics cards: memory, dense bfloat16 rate and bandwidth, by their makers' data sheets."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

GB = 2**30  # a card of "24 GB" holds 24 x 2^30 bytes, to within what its driver keeps


@dataclass(frozen=True)
class Card:
    """`memory` in bytes; `rate`: dense bfloat16 tensor FLOP/s with float32 sums, None for a bare size; `bandwidth` in bytes/s."""

    name: str
    memory: int
    rate: float | None = None
    bandwidth: float | None = None
    source: str = ""


# GB, dense bfloat16 TFLOP/s (half of what a data sheet gives "with sparsity"), GB/s
_GA102 = "NVIDIA Ampere GA102 GPU Architecture whitepaper (2021)"
_ADA = "NVIDIA Ada GPU Architecture whitepaper v2 (2023)"
_BLACKWELL = "NVIDIA RTX Blackwell GPU Architecture whitepaper (2025)"
_SHEETS: tuple[tuple[str, float, float, float, str], ...] = (
    ("RTX 3080", 10, 59.5, 760, _GA102),
    ("RTX 3090", 24, 71, 936, _GA102),
    ("RTX A6000", 48, 154.8, 768, _GA102),
    ("RTX 4070 Ti", 12, 80.2, 504, _ADA),
    ("RTX 4080", 16, 97.5, 717, _ADA),
    ("RTX 4090", 24, 165.2, 1008, _ADA),
    ("RTX 5080", 16, 112.6, 960, _BLACKWELL),
    ("RTX 5090", 32, 209.5, 1792, _BLACKWELL),
    ("A10", 24, 125, 600, "NVIDIA A10 data sheet"),
    ("A40", 48, 149.7, 696, "NVIDIA A40 data sheet"),
    ("L4", 24, 121, 300, "NVIDIA L4 data sheet"),
    ("L40S", 48, 362, 864, "NVIDIA L40S data sheet"),
    ("A100 40GB", 40, 312, 1555, "NVIDIA A100 data sheet"),
    ("A100 80GB", 80, 312, 2039, "NVIDIA A100 data sheet (SXM)"),
    ("H100", 80, 989, 3350, "NVIDIA H100 data sheet (SXM)"),
    ("H200", 141, 989, 4800, "NVIDIA H200 data sheet (SXM)"),
)
CARDS = tuple(
    Card(name, round(memory * GB), rate * 1e12, bandwidth * 1e9, source)
    for name, memory, rate, bandwidth, source in _SHEETS
)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(gib|gb|g)", re.IGNORECASE)


def card_named(text: str) -> Card:
    """A card by its name ('RTX 4090', 'rtx4090', 'NVIDIA H100'), or a size ('24GB'). Raises ValueError for anything else."""
    if size := _SIZE.fullmatch(text.strip()):
        if float(size[1]) <= 0:
            raise ValueError(f"`--gpu {text}`: a card's memory must be above 0.")
        return Card(f"a card of {float(size[1]):g} GB", round(float(size[1]) * GB))
    by_key = {_key(card.name): card for card in CARDS}
    if _key(text) in by_key:
        return by_key[_key(text)]
    if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        raise ValueError(f"`--gpu {text}` has no unit. Type `--gpu {text.strip()}GB`, or a card's name.")
    close = [by_key[key].name for key in difflib.get_close_matches(_key(text), by_key, n=3, cutoff=0.6)]
    close = [card.name for key, card in by_key.items() if _key(text) and key.startswith(_key(text))] or close
    known = f" Did you mean {' or '.join(close)}?" if close else f" Known: {', '.join(card.name for card in CARDS)}."
    raise ValueError(f"`--gpu {text}` is neither a size such as 24GB nor a known card.{known}")


def _key(name: str) -> str:
    """A name without its maker, spaces and case."""
    return re.sub(r"nvidia|geforce|tesla|[^a-z0-9]", "", name.lower())
