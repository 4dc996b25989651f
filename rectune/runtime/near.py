"""Names and values in messages: near misses of a name, values that are not pages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 12  # names that are all listed
NEAREST = 5


def near(name: str, known: Iterable[str]) -> str:
    """Return ' Did you mean `x`?' for the known names close to `name`, else what is known: all of it, or the nearest of many."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name[:80], names, n=2, cutoff=0.6)
    if close:
        return f" Did you mean {' or '.join(f'`{c}`' for c in close)}?"
    if len(names) > FEW:
        nearest = difflib.get_close_matches(name[:80], names, n=NEAREST, cutoff=0.0)
        return f" Known: {', '.join(nearest)} and {len(names) - len(nearest):,} others."
    return f" Known: {', '.join(names)}." if names else ""


def shown(value: object, *, most: int = 80) -> str:
    """A value as Python writes it, the middle left out where that is more than `most` characters."""
    text = repr(value)
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
