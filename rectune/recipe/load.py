"""Recipes: one YAML file that holds everything one run needs."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

import rectune
from rectune.runtime.near import near, shown
from rectune.runtime.text_files import read_text

SECTIONS = (
    "include",
    "about",
    "cite",
    "from",
    "data",
    "split",
    "vectors",
    "index",
    "tasks",
    "model",
    "stages",
    "sasrec",
    "rank",
    "eval",
    "seed",
    "grid",
    "output_dir",
)
MOST = 20_000  # keys of a recipe
REQUIRED = ("data", "split", "tasks", "model", "stages", "rank", "eval", "output_dir")


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: `settings` is the plain nested mapping, `lines` says where each dotted key was written."""

    name: str
    settings: dict[str, Any]
    lines: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def where(self, key: str) -> str:
        """Return '`key` (file:line)', or only '`key`' when it was not written in a file."""
        return f"`{key}` ({self.lines[key]})" if key in self.lines else f"`{key}`"

    def find(self, path: str | Path, *, kind: str = "") -> Path:
        """Look `path` up beside the recipe, then in the working folder, then among the bundled folder `kind`, of which it is a file.

        Raises FileNotFoundError with the places that were looked at.
        """
        places = [self.folder or Path(), Path(), *(bundled(kind) if kind else [])]
        for place in places:
            try:
                there, whole = (place / path).is_file() if kind else (place / path).exists(), (place / path).resolve()
            except (OSError, ValueError):  # too long a name, or one with a NUL
                raise FileNotFoundError(f"{shown(str(path))} is no path of a file.") from None
            if there:
                return whole
        tried = ", ".join(dict.fromkeys(str((p / path).resolve()) for p in places))
        raise FileNotFoundError(f"`{path}` was not found. Looked for: {tried}.")

    def dump(self) -> str:
        """Return the settings as YAML, in the order of the sections."""
        ordered = {key: self.settings[key] for key in SECTIONS if key in self.settings}
        return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=110)


def bundled(kind: str) -> list[Path]:
    """Return the folders named `kind` that come with rectune (in a clone, beside the package)."""
    return [Path(place) / kind for place in rectune.__path__ if (Path(place) / kind).is_dir()]


def load_recipe(path: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> Recipe:
    """Read a recipe file, or a bundled one by name, follow `include`, and apply dotted overrides in order.

    `overrides` holds pairs such as ("stages.0.learning_rate", "1e-4"); values are read as YAML.
    Raises FileNotFoundError, ValueError or TypeError with the file and line of what is wrong.
    """
    file = _recipe_file(path)
    settings, lines = _read_with_includes(file, ())
    recipe = Recipe(name=file.stem, settings=settings, lines=lines, folder=file.parent)
    for key, text in overrides:
        _override(recipe, key, text)
    _check_sections(recipe)
    return recipe


def overridden(recipe: Recipe, overrides: Sequence[tuple[str, str]]) -> Recipe:
    """The recipe with other values of some keys, as `load_recipe` sets them; the given one stays as it is."""
    other = replace(recipe, settings=copy.deepcopy(recipe.settings), lines=dict(recipe.lines))
    for key, text in overrides:
        _override(other, key, text)
    _check_sections(other)
    return other


def _recipe_file(path: str | Path) -> Path:
    asked = Path(path)
    candidates = [asked, *(folder / f"{asked.stem}.yaml" for folder in bundled("recipes") if asked.parent == Path())]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    names = [file.stem for folder in bundled("recipes") for file in folder.glob("*.yaml")]
    raise FileNotFoundError(f"no recipe `{path}`: not a file, and not bundled.{near(asked.stem, names)}")


# ---------------------------------------------------------------------------------------------------- YAML with lines


class _Loader(yaml.SafeLoader):
    """Safe YAML where 1e-4 is a number and yes/no/on/off are words (YAML 1.2), as people expect."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in rules if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
    ]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|Inf)$|^\.(?:nan|NaN)$"),
    list("-+0123456789."),
)


def read_yaml(text: str, source: str) -> tuple[Any, dict[str, str]]:
    """Parse YAML safely. Returns the data and, for each dotted key, 'source:line'. Refuses a key given twice."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[str, str] = {}
        if node is not None:
            _walk(node, "", source, lines, ())
        return (_constructed(loader, node, source) if node is not None else None), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{source}:{mark.line + 1}" if mark else source
        raise ValueError(f"{place}: not valid YAML: {error.problem}.") from None
    except RecursionError:
        raise ValueError(f"{source}: not readable YAML: it is nested too deeply.") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not valid YAML: {' '.join(str(error).split())}.") from None


def _constructed(loader: yaml.SafeLoader, node: yaml.Node, source: str) -> Any:
    """What a document says. Raises ValueError for a date that there is not."""
    try:
        return loader.construct_document(node)
    except ValueError as error:
        raise ValueError(
            f"{source}: not readable YAML: {error}. A text that looks like a date or a number stands in quotes."
        ) from None


def _walk(node: yaml.Node, prefix: str, source: str, lines: dict[str, str], above: tuple[yaml.Node, ...]) -> None:
    if any(node is one for one in above):
        raise ValueError(f"{lines[prefix.rstrip('.')]}: `{prefix.rstrip('.')}` is an alias of what it stands in.")
    if len(lines) > MOST:
        raise ValueError(f"{source}: a recipe of more than {MOST:,} keys, aliases written out, is not read.")
    if isinstance(node, yaml.SequenceNode):
        for i, child in enumerate(node.value):
            lines[f"{prefix}{i}"] = f"{source}:{child.start_mark.line + 1}"
            _walk(child, f"{prefix}{i}.", source, lines, (*above, node))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(
                    f"{source}:{line}: a key must be a word; a text that begins with a bracket stands in quotes."
                )
            if key.value in seen:
                raise ValueError(
                    f"{source}:{line}: key `{prefix}{key.value}` was already given on line {seen[key.value]}."
                )
            seen[key.value] = line
            lines[f"{prefix}{key.value}"] = f"{source}:{line}"
            _walk(child, f"{prefix}{key.value}.", source, lines, (*above, node))


def _read_with_includes(file: Path, parents: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    if file in parents:
        raise ValueError(
            f"{file.name}: `include` goes round in a circle: {' -> '.join(p.name for p in (*parents, file))}."
        )
    settings, lines = read_yaml(read_text(file), file.name)
    if not isinstance(settings, dict):
        raise ValueError(f"{file.name}: a recipe must be a mapping of sections ({', '.join(SECTIONS)}).")
    if "include" not in settings:
        return settings, lines
    included = settings.pop("include")
    if not isinstance(included, str):
        raise TypeError(f"`include` ({lines['include']}): got {shown(included)}, but it must be the name of a recipe.")
    beside = file.parent / included
    base, base_lines = _read_with_includes(
        beside.resolve() if beside.is_file() else _recipe_file(included), (*parents, file)
    )
    return merge(base, settings, lambda key: f"`{key}` ({lines.get(key, file.name)})"), {**base_lines, **lines}


def merge(base: Any, change: Any, where: Callable[[str], str] = str, key: str = "") -> Any:
    """Lay `change` over `base`: mappings key by key, a mapping of positions over a list entry by entry, where the position after the last one adds
    to it, and everything else (whole lists too) replaced.

    A mapping with another `call` or `model_type` replaces the old one whole: its keys belong to another function or model. Raises ValueError for a
    position that would leave a gap.
    """
    if isinstance(base, list) and isinstance(change, dict) and change and all(type(at) is int for at in change):
        entries = dict(enumerate(base))
        for at in sorted(change):
            if not 0 <= at <= len(entries):
                raise ValueError(
                    f"{where(f'{key}.{at}')}: the list that is included ends with {len(base) - 1}; a number up to that changes an entry, {len(base)} adds one."
                )
            entries[at] = merge(entries.get(at), change[at], where, f"{key}.{at}")
        return list(entries.values())
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return copy.deepcopy(change)
    if any(change.get(name, base.get(name)) != base.get(name) for name in ("call", "model_type")):
        return copy.deepcopy(change)
    inside = {name: f"{key}.{name}" if key else str(name) for name in change}
    return {**base, **{name: merge(base.get(name), value, where, inside[name]) for name, value in change.items()}}


def _override(recipe: Recipe, key: str, text: str) -> None:
    value, _ = read_yaml(text, f"--{key}")
    *path, last = key.split(".")
    if key == "include":
        raise ValueError(
            "`--include`: what a recipe includes stands in its file. Write a recipe that includes both, or give the other one's keys."
        )
    if (path == [] and last not in SECTIONS) or (path and path[0] not in SECTIONS):
        raise ValueError(f"`--{key}`: unknown section.{near(key.split('.')[0], SECTIONS)}")
    here: Any = recipe.settings
    for depth, part in enumerate(path):
        here = _step(here, part, ".".join(path[: depth + 1]))
    if isinstance(here, list):
        here[_position(here, last, key)] = value
    else:
        here[last] = value
    for old in [line for line in recipe.lines if line == key or line.startswith(f"{key}.")]:
        del recipe.lines[old]


def _step(here: Any, part: str, key: str) -> Any:
    if isinstance(here, list):
        return here[_position(here, part, key)]
    if here.get(part) is None:
        here[part] = {}
    if not isinstance(here[part], dict | list):
        raise ValueError(f"`--{key}`: `{key}` holds {shown(here[part])}, which has no keys.")
    return here[part]


def _position(here: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(here):
        raise ValueError(f"`--{key}`: `{part}` must be a position from 0 to {len(here) - 1} in the list.")
    return int(part)


def _check_sections(recipe: Recipe) -> None:
    for key in recipe.settings:
        if key not in SECTIONS:
            raise ValueError(f"{recipe.where(str(key))}: unknown section.{near(str(key), SECTIONS)}")
    for key in REQUIRED:
        if recipe.settings.get(key) is None:
            raise ValueError(f"recipe `{recipe.name}`: the section `{key}` is missing.")
    kinds = {
        "data": dict,
        "split": dict,
        "vectors": list,
        "index": dict,
        "tasks": list,
        "model": dict,
        "stages": list,
        "rank": dict,
        "eval": dict,
        "grid": dict,
    }
    for key, kind in kinds.items():
        value = recipe.settings.get(key)
        if value is not None and not isinstance(value, kind):
            raise TypeError(
                f"{recipe.where(key)}: got {shown(value)}, but it must be a {'list' if kind is list else 'mapping'}."
            )
    for key in ("vectors", "tasks", "stages"):
        if key == "vectors" and recipe.settings.get(key) is None:
            continue
        if not recipe.settings[key] or not all(isinstance(entry, dict) for entry in recipe.settings[key]):
            raise TypeError(f"{recipe.where(key)}: it must be a list of at least one mapping, each with `call`.")
    seed = recipe.settings.setdefault("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise TypeError(f"{recipe.where('seed')}: got {shown(seed)}, but it must be a whole number from 0 on.")
    folder = recipe.settings["output_dir"]
    try:
        usable = isinstance(folder, str) and folder.strip() != "" and Path(folder).resolve().exists() in (True, False)
    except (OSError, ValueError):  # too long a name, or one with a NUL
        usable = False
    if not usable:
        raise TypeError(f"{recipe.where('output_dir')}: got {shown(folder)}, but it must be a folder.")
