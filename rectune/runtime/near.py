"""Near misses of a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str]) -> str:
    """Return ' Did you mean `x`?' for the known names close to `name`, else the list of what is known."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    if close:
        return f" Did you mean {' or '.join(f'`{c}`' for c in close)}?"
    return f" Known: {', '.join(names)}." if names else ""
