"""Naming a callable: a short name is looked up in its section's home, `module:function` works everywhere."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import rectune
from rectune.recipe.checking import check_keywords, keywords_of
from rectune.recipe.contracts import Takes, check_function, check_module, contract_at
from rectune.recipe.fingerprints import name_of
from rectune.recipe.load import Recipe
from rectune.runtime.files import inputs
from rectune.runtime.near import near, shown


@dataclass(frozen=True)
class Home:
    """Where the short names of a section live, and the contract of what they name.

    `place`: a package, whose file `name.py` offers `attribute` (by default the function `name`), or a module, whose public
    functions are the names (`whole`). `contract`: 'module:Protocol', of a function by the annotation of its result known as one, or of a
    module; `may_have`: of what a module may define as well. `plain`: named by itself, it takes no keys.
    """

    place: str
    contract: str
    may_have: str = ""
    attribute: str = ""
    whole: bool = False
    plain: bool = False

    @property
    def call(self) -> Takes | None:
        """How a function of it is called; None where modules are named."""
        return contract_at(self.contract).call

    @property
    def first(self) -> tuple[str, ...]:
        """The parameters that a function begins with."""
        return self.call.first if self.call is not None else ()

    @property
    def needs(self) -> tuple[str, ...]:
        """What a module must define; () where functions are named."""
        return contract_at(self.contract).names

    @property
    def may_define(self) -> tuple[str, ...]:
        """What a module may define as well."""
        return contract_at(self.may_have).names if self.may_have else ()

    @property
    def may(self) -> tuple[str, ...]:
        """What a function is given where it has such a parameter."""
        return self.call.may if self.call is not None else ()

    def full(self, name: str) -> str:
        """The dotted name of a short one."""
        if self.whole:
            return f"{self.place}:{name}"
        return f"{self.place}.{name}" if self.needs else f"{self.place}.{name}:{self.attribute or name}"

    def check(self, named: Any, where: str) -> None:
        """Raise ValueError for a function or a module that does not keep the contract."""
        stated = contract_at(self.contract)
        if stated.call is not None:
            check_function(named, stated.call, where)
        else:
            what = f"a {self.contract.rpartition(':')[2].lower()}"
            check_module(named, stated, contract_at(self.may_have) if self.may_have else None, what, where)


HOMES = {
    "data": Home("rectune.data_builders", "rectune.log.log:Builder"),
    "split": Home("rectune.log.splits", "rectune.log.split:Splitter"),
    "vectors": Home("rectune.vectors", "rectune.vectors.item_vectors:VectorSource"),
    "index": Home("rectune.indexing", "rectune.indexing.item_index:Indexer"),
    "tasks": Home("rectune.tasks", "rectune.tasks.rows:Task"),
    "tasks.history": Home("rectune.tasks.history", "rectune.tasks.history:HistorySelector", whole=True),
    "tasks.writer": Home("rectune.tasks.writers", "rectune.tasks.written:Writer"),
    "stages": Home("rectune.methods", "rectune.methods.contract:Method", may_have="rectune.methods.contract:MethodMay"),
    "stages.rewards": Home("rectune.methods.rewards", "rectune.methods.rewards:Rewarding", whole=True, plain=True),
    "rank.prior": Home("rectune.baselines", "rectune.baselines.prior:Prior"),
    "eval": Home("rectune.eval", "rectune.run.judged:Evaluator"),
    "eval.oracle": Home("rectune.data_builders", "rectune.baselines.scoring:Oracle", attribute="oracle", plain=True),
}
# Where a dotted name stood before the folders were cut by their jobs -> the section whose short name is the same word.
MOVED = {
    "rectune.split": "split", "rectune.row_splits": "split", "rectune.tasks": "tasks", "rectune.text_tasks": "tasks",
    "rectune.instructions": "tasks", "rectune.history": "tasks.history", "rectune.writers.extractive": "tasks.writer",
    "rectune.writers.causal_model": "tasks.writer", "rectune.vectors.texts": "vectors", "rectune.eval.prior": "rank.prior",
}  # fmt: skip


def home_of(key: str) -> Home | None:
    """The home of the callable that `key` names, e.g. 'tasks.0.writer'; None where only dotted names work."""
    parts = [part for part in key.split(".") if not part.isdigit()]
    if parts[:2] == ["stages", "tasks"]:
        parts = parts[1:]
    if parts == ["writer"]:  # a task hands its writer on
        parts = ["tasks", "writer"]
    for length in range(len(parts), 0, -1):  # an index that takes another one names it in its own home
        if ".".join(parts[:length]) in HOMES:
            return HOMES[".".join(parts[:length])]
    return None


@cache
def offered(home: Home) -> dict[str, str]:
    """The short names of a home with the first sentence of what each says of itself; nothing is imported."""
    found: dict[str, str] = {}
    for file in _files(home.place):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        defined = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        if home.whole:
            found |= {name: _sentence(node) for name, node in defined.items() if _offers(node, home)}
        elif home.needs:
            handed = {
                alias.asname or alias.name for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names
            }
            whole = all(name in defined or name in handed for name in home.needs)
            found |= {file.stem: _sentence(tree)} if whole and set(home.needs) & set(defined) else {}
        else:
            node = defined.get(home.attribute or file.stem)
            found |= {file.stem: _sentence(node)} if node is not None and _offers(node, home) else {}
    return found


def _files(place: str) -> list[Path]:
    """The Python files of a package of ours, or the one file of a module."""
    inside = place.split(".")[1:]
    for root in map(Path, rectune.__path__):
        folder = root.joinpath(*inside)
        if folder.is_dir():
            return sorted(file for file in folder.glob("*.py") if not file.stem.startswith("_"))
        if folder.with_suffix(".py").is_file():
            return [folder.with_suffix(".py")]
    raise ModuleNotFoundError(f"no module `{place}`", name=place)


def _offers(node: ast.AST, home: Home) -> bool:
    if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
        return False
    return home.call is not None and node.returns is not None and ast.unparse(node.returns) == home.call.returns


def _sentence(node: Any) -> str:
    text = " ".join((ast.get_docstring(node) or "").split())
    return re.split(r"\.\s+(?=[A-Z`])", text, maxsplit=1)[0].rstrip(".") + "." if text else ""  # not at "sec. 3.2"


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
