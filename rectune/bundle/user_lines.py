"""Users in a file of lines, each with their history, and what they choose among."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rectune.runtime.near import shown

FORM = '{"user": …, "items": [ID, …]}'


@dataclass(frozen=True)
class UserLine:
    """A user, their items, oldest first, and the items that they choose among, None where the line says none."""

    user: str | int | float
    items: list[str]
    candidates: list[str] | None


def user_line(line: str, where: str) -> UserLine:
    """Read one line of `FORM`, which may have `candidates`, a list too; what is null or empty in a list is left out. Raises ValueError that begins with `where`."""
    try:
        row = json.loads(line)
        if not isinstance(row["user"], str | int | float):
            raise TypeError
        return UserLine(row["user"], _ids(row["items"]), _ids(row["candidates"]) if "candidates" in row else None)
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{where}: a line must be {FORM}, got {shown(line.strip()[:80])}.") from None


def _ids(value: Any) -> list[str]:
    """Ids as texts. Raises TypeError for anything but a list of texts and numbers: the letters of a text are no items."""
    if not isinstance(value, list) or not all(isinstance(item, str | int | float | None) for item in value):
        raise TypeError
    return [str(item) for item in value if item not in (None, "")]
