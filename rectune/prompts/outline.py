"""What prompts are made of: the texts that a template writes around items, and where it prints which column of an item."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Template, codes_value, segments

NAME = "name"
# A made-up text, as long as texts of items are: the number of a column and a place, and all that filters change.
_REST = (" <b>&amp; \"Éß' (x) 7,5; " + "wörd Long " * 30)[:284] + "End"
_MADE_UP = re.compile(r"Ab(\d{3})-(\d{6})" + re.escape(_REST))


class Views(Protocol):
    """What a template sees of each item."""

    def __len__(self) -> int: ...

    def __call__(self, item: int) -> dict[str, Any]:
        """The columns of an item and its `name`."""


class Slot(NamedTuple):
    """Where a prompt shows a column of the item at a place of its history."""

    place: int
    column: str


USER = Slot(-1, "user")  # the user's token, where users have one
Line = list[str | int | Slot]  # a text that is encoded as one, with ids between and slots in it


class Shown(NamedTuple):
    """What a prompt is rendered of: views of items, and the user's token or ''."""

    items: list[dict[str, str]]
    user: str


class Outline:
    """Finds the lines of a template's prompts by rendering items that do not exist."""

    def __init__(self, encoder: Encoder, template: Template, views: Views) -> None:
        self._encoder, self._template, self._views = encoder, template, views

    def lines(self, wording: int, length: int, *, user: bool) -> list[Line] | None:
        """What a prompt is made of, found by made-up items of three kinds; None where a template does more than print their columns."""
        template, tokens = self._template, self._encoder.code_ids
        if not {"history"} <= set(template.arguments("prompt")) <= {"history", "user"} or not template.only_prints(
            self._columns
        ):
            return None
        if (self._coded or user) and length + 3 > len(tokens):
            return None
        try:
            first, *others = (self._made_up(kind, length, user=user) for kind in range(3))
            lines = [self._with_slots(line, first) for line in self._rendered(wording, first)]
            checked = all(
                [self._filled(line, other) for line in lines] == self._rendered(wording, other) for other in others
            )
        except ValueError:  # it asks for something else
            return None
        return lines if checked else None

    @cached_property
    def _columns(self) -> tuple[str, ...]:
        return tuple(self._views(0))

    @cached_property
    def _coded(self) -> bool:
        """Whether names are made of codes."""
        return any(segment.kind == "codes" for segment in segments(self._views(0)[NAME]))

    def _made_up(self, kind: int, length: int, *, user: bool) -> Shown:
        """Items and a user that do not exist: long texts with all that filters change, one letter everywhere, or short texts."""
        items = []
        for place in range(length):
            view = {
                column: (f"Ab{number:03}-{place:06}{_REST}", "a", f"v{place}_{number}")[kind]
                for number, column in enumerate(self._columns)
            }
            if self._coded:
                view[NAME] = codes_value([(place, length, length - 1 - place)[kind]])
            items.append(view)
        return Shown(items, codes_value([length + 1 + kind % 2]) if user else "")

    def _rendered(self, wording: int, shown: Shown) -> list[list[str | int]]:
        variables = {"history": list(shown.items), "user": shown.user}
        return self._encoder.prompt_pieces(self._template.prompt(wording, variables))

    def _value(self, shown: Shown, slot: Slot) -> str | int:
        value = shown.user if slot == USER else shown.items[slot.place][slot.column]
        return self._encoder.ids(segments(value))[0] if self.is_code(slot) else value

    def _with_slots(self, line: Sequence[str | int], shown: Shown) -> Line:
        """A line with slots where it shows what is made up."""
        coded = [Slot(place, NAME) for place in range(len(shown.items))] if self._coded else []
        of = {self._value(shown, slot): slot for slot in [*coded, *([USER] if shown.user else [])]}
        found: Line = []
        for part in line:
            if isinstance(part, int):
                found.append(of.get(part, part))
                continue
            at = 0
            for match in _MADE_UP.finditer(part):
                slot = Slot(int(match[2]), self._columns[int(match[1])])
                found += [part[at : match.start()], slot] if match.start() > at else [slot]
                at = match.end()
            found += [part[at:]] if at < len(part) else []
        return found

    def _filled(self, line: Line, shown: Shown) -> list[str | int]:
        """A line with what is shown in its slots."""
        filled: list[str | int] = []
        for part in line:
            value = self._value(shown, part) if isinstance(part, Slot) else part
            if isinstance(value, str) and filled and isinstance(filled[-1], str):
                filled[-1] += value
            else:
                filled.append(value)
        return filled

    def runs(self, line: Line) -> list[Line]:
        """A line cut into ids, names made of codes, and texts with their slots."""
        runs: list[Line] = []
        text = False
        for part in line:
            is_text = not isinstance(part, int) and not self.is_code(part)
            if text and is_text:
                runs[-1].append(part)
            else:
                runs.append([part])
            text = is_text
        return runs

    def is_code(self, part: str | int | Slot) -> bool:
        """Whether a part stands for codes, which no text around them can change."""
        return isinstance(part, Slot) and (part == USER or (self._coded and part.column == NAME))


def literals(run: Line) -> list[str]:
    """What stands before, between and behind the slots of a text."""
    literals = [""]
    for part in run:
        if isinstance(part, Slot):
            literals.append("")
        else:
            literals[-1] += str(part)
    return literals
