"""Warnings as a command prints them: one line each, and what only its numbers tell apart once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any


class ToldOnce(UserWarning):
    """A warning that a command prints once, whatever the numbers in it: the first case says what there is to know."""


def one_line_each() -> Callable[..., str]:
    """What to set `warnings.formatwarning` to; it remembers what it has told."""
    told: set[str] = set()

    def formatted(message: Any, category: type[Warning], *where: Any) -> str:
        if issubclass(category, ToldOnce):
            words = re.sub(r"\d[\d,.]*", "#", str(message))
            if words in told:
                return ""
            told.add(words)
        return f"warning: {message}\n"

    return formatted
