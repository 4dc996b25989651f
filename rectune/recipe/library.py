"""Sections whose keys belong to a library's dataclass (TRL's ModelConfig, SFTConfig and their kin)."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rectune.recipe.checking import check_type
from rectune.recipe.load import Recipe
from rectune.runtime.near import near, shown


@dataclass(frozen=True)
class Range:
    """The numbers that a key may have: from `low` on, or `above` it, and below `below` where there is one; `also` is a word for nothing."""

    low: float
    above: bool = False
    below: float | None = None
    also: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a number is in it."""
        if value == self.also:
            return True
        return (value > self.low or (value == self.low and not self.above)) and (
            self.below is None or value < self.below
        )

    def __str__(self) -> str:
        words = f"above {self.low:g}" if self.above else f"from {self.low:g} on"
        words += f" and below {self.below:g}" if self.below is not None else ""
        return f"{self.also:g} or a number {words}" if self.also is not None else f"a number {words}"


FROM_0, ABOVE_0, FROM_1, SHARE = Range(0), Range(0, above=True), Range(1), Range(0, below=1)


def library_config(
    kind: type, section: dict[str, Any], recipe: Recipe, key: str, *, also: Iterable[str] = (),
    ranges: Mapping[str, Range] | None = None,
) -> Any:  # fmt: skip
    """Make a `kind` out of a recipe section, its names, types, choices and ranges checked first.

    `also` are further names for the near misses. Raises TypeError or ValueError naming key, file and line.
    """
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind) if f.init}
    for name, value in section.items():
        where = recipe.where(f"{key}.{name}")
        if name not in known:
            raise ValueError(f"{where}: `{kind.__name__}` has no such key.{near(str(name), known | set(also))}")
        section[name] = _check(value, hints[name], where)
        check_range(section[name], (ranges or {}).get(name), where)
    try:
        return kind(**section)
    except Exception as error:  # whatever a library's own checks raise, it is about these keys
        raise ValueError(f"{recipe.where(key)}: {' '.join(str(error).split())[:400]}") from None


def check_range(value: Any, allowed: Range | None, where: str) -> None:
    """Raise ValueError for a number outside of its range; what is no number is another's to check."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if allowed is not None and number and not allowed.holds(value):
        raise ValueError(f"{where}: got {shown(value)}, but it must be {allowed}.")


def _check(value: Any, hint: Any, where: str) -> Any:
    options = typing.get_args(hint) or (hint,)
    enums = [o for o in options if isinstance(o, type) and issubclass(o, enum.Enum)]
    if enums and isinstance(value, str):
        choices = [member.value for member in enums[0]]
        if value not in choices:
            raise ValueError(f"{where}: got {shown(value)}.{near(value, choices)}")
        return value
    if dict in options or any(typing.get_origin(o) is dict for o in options):
        if value is not None and not isinstance(value, dict | str):
            raise TypeError(f"{where}: got {shown(value)}, but it must be a mapping.")
        return value
    return check_type(value, hint, where)
