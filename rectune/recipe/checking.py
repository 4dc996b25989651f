"""Values from a recipe or the command line, checked against Python annotations."""

from __future__ import annotations

import enum
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Union

from rectune.runtime.near import near, shown


def check_type(value: Any, annotation: Any, where: str) -> Any:
    """Return `value` as `annotation` asks (an int becomes a float, a list a tuple), or raise TypeError naming `where`."""
    if annotation in (Any, inspect.Parameter.empty):
        return value
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return _check_union(value, args, where)
    if origin is Literal:
        if value not in args:
            raise TypeError(f"{where}: got {shown(value)}, but it must be one of {', '.join(map(repr, args))}.")
        return value
    if origin in (list, tuple) or annotation in (list, tuple):
        return _check_sequence(value, origin or annotation, args, where)
    if origin is dict or annotation is dict:
        if not isinstance(value, dict):
            raise _wrong(value, "a mapping", where)
        return value
    return _check_plain(value, annotation, where)


def _check_union(value: Any, options: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in options:
        return None
    failures = []
    for option in options:
        if option is type(None):
            continue
        try:
            return check_type(value, option, where)
        except TypeError as failure:
            failures.append(failure)
    raise failures[0]


def _check_sequence(value: Any, kind: Any, args: tuple[Any, ...], where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _wrong(value, "a list", where)
    item = args[0] if args else Any
    checked = [check_type(v, item, f"{where}[{i}]") for i, v in enumerate(value)]
    return tuple(checked) if kind is tuple else checked


def _check_plain(value: Any, annotation: Any, where: str) -> Any:
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise _wrong(value, "a finite number", where)
        return float(value)
    if annotation is Path and isinstance(value, str) and value.strip():
        return Path(value)
    if annotation is int and isinstance(value, bool):
        raise _wrong(value, "a whole number", where)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum) and not isinstance(value, annotation):
        raise _wrong(value, f"one of {', '.join(str(member.value) for member in annotation)}", where)
    if isinstance(annotation, type) and not isinstance(value, annotation):
        words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
        raise _wrong(value, words.get(annotation, annotation.__name__), where)
    return value


def _wrong(value: Any, needed: str, where: str) -> TypeError:
    return TypeError(f"{where}: got {shown(value)} ({type(value).__name__}), but it must be {needed}.")


def keywords_of(function: Callable[..., Any], given: Iterable[str]) -> dict[str, inspect.Parameter]:
    """Return the parameters of `function` that a recipe may set: all but the ones named in `given`."""
    signature = inspect.signature(function, eval_str=True)
    return {n: p for n, p in signature.parameters.items() if n not in set(given)}


def check_keywords(
    function: Callable[..., Any],
    settings: dict[str, Any],
    where: Callable[[str], str],
    *,
    given: Iterable[str],
    also: Iterable[str] = (),
) -> dict[str, Any]:
    """Check `settings` against the signature of `function`; `where(key)` names a key in messages. `also`: further names for near misses.

    Raises TypeError for an unknown key (with near misses), a missing one, or a value of the wrong type.
    """
    known = keywords_of(function, given)
    for key in settings:
        if key not in known:
            raise TypeError(f"{where(key)}: unknown key.{near(str(key), {*known, *also})}")
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in settings:
            raise TypeError(f"{where(key)}: the key is missing and has no default.")
    return {key: check_type(value, known[key].annotation, where(key)) for key, value in settings.items()}
