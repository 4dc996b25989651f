"""A box: one stage of the line, with what it takes to tell it from another, to make it and to read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Held(Protocol):
    """What a box is handed: the boxes that it needs, and no others."""

    def __getitem__(self, name: str) -> Any:
        """What the box of that name holds, loaded."""

    def folder(self, name: str) -> Path:
        """The folder in which it lies."""

    def mark(self, name: str) -> str:
        """Its fingerprint."""


@dataclass(frozen=True)
class Box:
    """One stage of the line.

    `needs`: names of the boxes that it reads; they come before it. `keys()`: all that it reads of what was asked, told apart by
    its fingerprint. `build(held, folder)` fills an empty folder and `load(held, folder)` reads it. `made_by`: the functions or
    modules that do the work; their code is a mark beside the fingerprint. `resumes`: `build` finds what an earlier attempt left
    and is called in every process; others are built by the main one from nothing. `alone`: only the main process asks for it.
    """

    name: str
    needs: tuple[str, ...]
    keys: Callable[[], Any]
    build: Callable[[Held, Path], None]
    load: Callable[[Held, Path], Any]
    made_by: tuple[Any, ...] = ()
    resumes: bool = False
    alone: bool = False
