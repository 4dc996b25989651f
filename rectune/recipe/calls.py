"""Naming a callable: a short name is looked up in its section's home, `module:function` works everywhere."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rectune.recipe.checking import check_keywords, keywords_of
from rectune.recipe.fingerprints import name_of
from rectune.recipe.homes import HOMES, MOVED, SETTABLE, Home, home_of, offered
from rectune.recipe.load import Recipe
from rectune.runtime.files import inputs
from rectune.runtime.near import near, shown


def resolve_call(recipe: Recipe, key: str) -> Any:
    """Import what `key`.call names: a short name of the section's home, 'package.module:function', or 'package.module' for a
    method or a prior."""
    name = section_at(recipe, key).get("call")
    if not isinstance(name, str):
        raise TypeError(
            f"{recipe.where(f'{key}.call')}: got {shown(name)}, but it must be a text such as {_example(key)}'package.module:function'."
        )
    return named(name, home_of(key), recipe.where(f"{key}.call"))


def named(name: str, home: Home | None, where: str) -> Any:
    """Import what a name means, and hold it to its home's contract. `where` names the key in messages. Raises ValueError for a name that
    means nothing, and for what does not keep the contract."""
    found = _imported(name, home, where)
    if home is not None:
        home.check(found, where)
    return found


def keys_of(section: str, name: str) -> dict[str, str]:
    """The keys that a short name takes and their defaults as a recipe writes them ('' where one has to be given); none where modules are named."""
    home = HOMES[section]
    if home.needs:
        return {}
    known = keywords_of(named(name, home, section), (*home.first, *(set(home.may) - SETTABLE)))
    return {key: "" if one.default is one.empty else _written(one.default) for key, one in known.items()}


def _written(value: Any) -> str:
    return value.__name__ if callable(value) else json.dumps(value, ensure_ascii=False)


def _imported(name: str, home: Home | None, where: str) -> Any:
    module_name, _, attribute = _dotted(name, home, where).partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *([attribute] if attribute else [])]):
        raise ValueError(f"{where}: got {shown(name)}; a name is 'package.module:function'.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        _tell_what_moved(module_name, attribute, where)
        raise ValueError(f"{where}: no module `{module_name}`.{near(module_name, _siblings(module_name))}") from None
    if not attribute:
        return module
    if not callable(getattr(module, attribute, None)):
        _tell_what_moved(module_name, attribute, where)
        offers = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        offers = [n for n in offers if not n.startswith("_")]
        raise ValueError(f"{where}: `{module_name}` has nothing to call named `{attribute}`.{near(attribute, offers)}")
    return getattr(module, attribute)


def _dotted(name: str, home: Home | None, where: str) -> str:
    """A name with its module; a module of the working folder without a dot is one, too."""
    if "." in name or ":" in name:
        return name
    if home is None:
        raise ValueError(f"{where}: got `{name}`; here only 'package.module:function' is a name.")
    known = offered(home)
    if name not in known and home.needs and name.isidentifier() and importlib.util.find_spec(name) is not None:
        return name  # a method or a prior in a file of the working folder
    if name not in known:
        raise ValueError(
            f"{where}: there is no `{name}`.{near(name, known)} A function of your own is 'module:function'."
        )
    return home.full(name)


def _tell_what_moved(module_name: str, attribute: str, where: str) -> None:
    """Raise ValueError with what to type for a name that has moved."""
    if module_name not in MOVED:
        return
    short = attribute or module_name.rpartition(".")[2]
    if short in offered(HOMES[MOVED[module_name]]):
        said = f"{module_name}:{attribute}" if attribute else module_name
        raise ValueError(f"{where}: `{said}` has moved. Type `{short}`.") from None


def _example(key: str) -> str:
    home = home_of(key)
    return f"`{next(iter(offered(home)))}` or " if home is not None else ""


def _siblings(module_name: str) -> list[str]:
    """Return the modules that stand where `module_name` was looked for."""
    parent = module_name.rpartition(".")[0]
    if not parent:
        return []
    try:
        places = importlib.import_module(parent).__path__
    except (ImportError, AttributeError):
        return [name for name in sys.modules if name.startswith("rectune.")]
    return [f"{parent}.{f.stem}" for place in places for f in Path(place).glob("*.py") if not f.stem.startswith("_")]


def section_at(recipe: Recipe, key: str) -> dict[str, Any]:
    """Return the mapping at the dotted `key`, e.g. 'tasks.0'."""
    here: Any = recipe.settings
    for part in key.split("."):
        here = here[int(part)] if isinstance(here, list) else here[part]
    assert isinstance(here, dict)
    return here


@dataclass(frozen=True)
class Call:
    """A callable of a recipe with its checked arguments. `key`: where it stands; `inside`: those that arguments name themselves,
    such as the `base` of an index, by the name of the argument; `known`: False where what it names is not there; `beside`: arguments that
    do not tell it from another call, such as the device."""

    key: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    inside: tuple[tuple[str, Call], ...] = ()
    known: bool = True
    beside: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *given: Any, **more: Any) -> Any:
        """Call it with what rectune gives and what the recipe says."""
        return self.function(*given, **more, **{**self.beside, **self.arguments})

    def wants(self, name: str) -> bool:
        """Whether the function has a parameter of that name."""
        return name in inspect.signature(self.function).parameters

    def keys(self, *, without: Path) -> dict[str, Any]:
        """What tells it from another call: names, arguments, stamps of the files that it is given. `without`: the run folder."""
        said = {"call": name_of(self.function), **inputs(self.arguments, without=without)}
        for name, call in self.inside:
            said["arguments"] = {**said["arguments"], name: call.keys(without=without)}
        return said

    @property
    def made_by(self) -> tuple[Any, ...]:
        """Whose code the result is."""
        if not self.known:
            return ()
        return (self.function, *(call.function for _, call in self.inside))


def read_call(
    recipe: Recipe, key: str, *, given: Sequence[str] = (), own: Sequence[str] = (), seed: int | None = None
) -> Call:
    """Resolve and bind the callable at `key`; what its arguments name themselves is checked, too.

    `seed`: given to a function that takes one and was told none, and in the homes of vectors and indexes so is `model.device`. Raises ValueError, TypeError or FileNotFoundError naming the key.
    """
    function = resolve_call(recipe, key)
    home, beside = home_of(key), {}
    arguments = bind(recipe, key, function, given=given, own=own)
    inside = []
    for name, value in arguments.items():
        if isinstance(value, dict) and "call" in value:
            call = _nested(recipe, f"{key}.{name}")
            plain = {k: str(v) if isinstance(v, Path) else v for k, v in call.arguments.items()}
            arguments[name] = {"call": name_of(call.function), **plain}
            inside.append((name, call))
    if seed is not None and "seed" in inspect.signature(function).parameters:
        arguments = {"seed": seed, **arguments}
    if home is not None and "device" in home.may and "device" in inspect.signature(function).parameters:
        beside["device"] = (recipe.settings.get("model") or {}).get("device") or "auto"
    return Call(key, function, arguments, tuple(inside), beside=beside)


def unless(gone: tuple[type[Exception], ...], key: str, read: Callable[[], Call]) -> Call:
    """What `read` gives; where that fails for one of these reasons, a call that raises the error when it is needed after all."""
    try:
        return read()
    except gone as error:
        told = error

        def missing(*given: Any, **more: Any) -> Any:
            raise told

        return Call(key, missing, {}, known=False)


def _nested(recipe: Recipe, key: str) -> Call:
    """A callable that an argument names, checked by its signature and its paths found; what has no default comes later."""
    function, value = resolve_call(recipe, key), section_at(recipe, key)
    parameters = inspect.signature(function).parameters.values()
    later = [p.name for p in parameters if p.default is p.empty and p.name not in value]
    return Call(key, function, bind(recipe, key, function, given=later))


def check_vectors(recipe: Recipe, call: Call, why: str) -> None:
    """Raise ValueError where a callable needs item vectors and the recipe has none."""
    if call.wants("vectors") and not recipe.settings.get("vectors"):
        raise ValueError(
            f"{recipe.where(f'{call.key}.call')}: `{call.function.__name__}` {why}. Add a section, e.g. "
            "vectors: [{call: sentences, text: [title]}]"
        )


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The default of each parameter that has one."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def bind(
    recipe: Recipe, key: str, function: Callable[..., Any], *, given: Sequence[str] = (), own: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the keyword arguments that the section `key` gives to `function`, checked by its signature.

    `given` are the parameters that rectune passes itself; `own` are keys of the section that are not for the
    function. A parameter annotated `Path` is looked for by `Recipe.find`.
    """
    section = {k: v for k, v in section_at(recipe, key).items() if k not in ("call", *own)}
    arguments = check_keywords(function, section, lambda k: recipe.where(f"{key}.{k}"), given=given, also=own)
    for name, parameter in keywords_of(function, given).items():
        if name in arguments and "Path" in str(parameter.annotation):
            where, several = recipe.where(f"{key}.{name}"), "list[" in str(parameter.annotation)
            try:
                found = _found(recipe, arguments[name])
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{where}: {error}") from None
            if isinstance(found, list) and not several:
                if len(found) > 1:
                    raise ValueError(
                        f"{where}: it takes one path, and {shown(arguments[name])} stands for {len(found)}: {', '.join(one.name for one in found[:5])}. Name one."
                    )
                (found,) = found
            if found == []:
                raise ValueError(f"{where}: the list of paths is empty.")
            arguments[name] = found
    return arguments


def _found(recipe: Recipe, value: Any) -> Any:
    """Paths where they are; a pattern such as 'events/*.csv' becomes the list of what it matches, unless there is a file of that very name."""
    if isinstance(value, list):
        found = [_found(recipe, Path(one) if isinstance(one, str) else one) for one in value]
        return [one for several in found for one in (several if isinstance(several, list) else [several])]
    if not isinstance(value, Path):
        return value
    try:
        return recipe.find(value)
    except FileNotFoundError:
        if not any(sign in value.name for sign in "*?["):
            raise
    folder = recipe.find(value.parent)
    matches = sorted(folder.glob(value.name))
    if not matches:
        raise FileNotFoundError(f"`{value}` matches no file in {folder}.")
    return matches
