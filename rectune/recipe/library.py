"""Sections whose keys belong to a library's dataclass (TRL's ModelConfig, SFTConfig and their kin)."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Iterable
from typing import Any

from rectune.recipe.checking import check_type
from rectune.recipe.load import Recipe
from rectune.runtime.near import near


def library_config(kind: type, section: dict[str, Any], recipe: Recipe, key: str, *, also: Iterable[str] = ()) -> Any:
    """Make a `kind` out of a recipe section, its names, types and choices checked first.

    `also` are further names for the near misses. Raises TypeError or ValueError naming key, file and line.
    """
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind) if f.init}
    for name, value in section.items():
        where = recipe.where(f"{key}.{name}")
        if name not in known:
            raise ValueError(f"{where}: `{kind.__name__}` has no such key.{near(name, known | set(also))}")
        section[name] = _check(value, hints[name], where)
    try:
        return kind(**section)
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"{recipe.where(key)}: {' '.join(str(error).split())}") from None


def _check(value: Any, hint: Any, where: str) -> Any:
    options = typing.get_args(hint) or (hint,)
    enums = [o for o in options if isinstance(o, type) and issubclass(o, enum.Enum)]
    if enums and isinstance(value, str):
        choices = [member.value for member in enums[0]]
        if value not in choices:
            raise ValueError(f"{where}: got {value!r}.{near(value, choices)}")
        return value
    if dict in options or any(typing.get_origin(o) is dict for o in options):
        return value
    return check_type(value, hint, where)
