"""What a bundle names of rectune: short names of its homes with plain arguments, and nothing else."""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import Any

from rectune.recipe.calls import Call, defaults_of, named
from rectune.recipe.checking import check_keywords
from rectune.recipe.homes import HOMES, offered
from rectune.runtime.near import near, shown


def short_name(section: str, thing: Any) -> str | None:
    """The short name of a callable or module of a section's home, or None where it is not of rectune."""
    home = HOMES[section]
    if isinstance(thing, types.ModuleType):
        name, full = thing.__name__.rpartition(".")[2], thing.__name__
    else:
        name, full = thing.__name__, f"{thing.__module__}:{thing.__name__}"
    return name if name in offered(home) and home.full(name) == full else None


def written_call(section: str, call: Call) -> dict[str, Any]:
    """A call as plain data: `call`, a short name (or, of code outside of rectune, the whole one, which no bundle is read with), and its arguments.

    `left`: the arguments that are of this machine or are callables themselves, so that it cannot be made again from here.
    """
    arguments = {**defaults_of(call.function), **call.arguments}
    takes = inspect.signature(call.function).parameters
    kept = {
        name: value for name, value in arguments.items()
        if name in takes and name not in HOMES[section].may and _plain(value) and not _names_a_file(takes[name])
    }  # fmt: skip
    if "seed" in call.arguments and "seed" in takes:
        kept["seed"] = call.arguments["seed"]
    left = sorted(name for name in call.arguments if name not in kept and name != "device")
    name = short_name(section, call.function) or f"{call.function.__module__}:{call.function.__name__}"
    return {"call": name, **kept, **({"left": left} if left else {})}


def read_call_of(section: str, written: Any, where: str) -> Call:
    """The call that `written_call` wrote. Raises ValueError for anything but a short name with arguments that its function takes."""
    if not isinstance(written, dict) or not isinstance(written.get("call"), str):
        raise ValueError(f"{where}: it names no function of rectune. Nothing was run.")
    function = known(section, written["call"], where)
    arguments = {key: value for key, value in written.items() if key not in ("call", "left")}
    home = HOMES[section]
    takes = inspect.signature(function).parameters
    strange = [
        key for key, value in arguments.items() if not _plain(value) or (key in takes and _names_a_file(takes[key]))
    ]
    if strange:
        raise ValueError(
            f"{where}: `{strange[0]}` is of this bundle's maker's machine, or no plain value. Nothing was run."
        )
    checked = check_keywords(
        function, arguments, lambda key: f"{where}, `{key}`", given=(*home.first, *(n for n in home.may if n != "seed"))
    )
    return Call(section, function, checked)


def known(section: str, name: Any, where: str) -> Any:
    """What a short name of a section means. Raises ValueError for one that rectune does not have, code of others among them."""
    home = HOMES[section]
    if not isinstance(name, str) or name not in offered(home):
        outside = isinstance(name, str) and (":" in name or "." in name)
        why = "code outside of rectune, which no bundle is read with" if outside else "unknown to this rectune"
        raise ValueError(f"{where}: {shown(name)} is {why}.{near(str(name), offered(home))} Nothing was run.")
    return named(name, home, where)


def _names_a_file(parameter: inspect.Parameter) -> bool:
    return "Path" in str(parameter.annotation)


def _plain(value: Any) -> bool:
    """Whether a value means the same on every machine."""
    if isinstance(value, list | tuple):
        return all(_plain(one) for one in value)
    if isinstance(value, str):
        return not Path(value).is_absolute() and len(value) < 10_000
    return value is None or isinstance(value, bool | int | float)
