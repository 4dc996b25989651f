"""Several runs of one recipe: every combination of the values that its section `grid` lists."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from rectune.recipe.load import SECTIONS, Recipe, overridden
from rectune.run.folder import RunFolder
from rectune.run.judged import as_json
from rectune.run.run import open_recipe
from rectune.run.single import train_one
from rectune.runtime.files import write_atomic
from rectune.runtime.near import near, shown
from rectune.runtime.processes import is_main, wait

Cell = dict[str, Any]  # dotted key -> value


def train_grid(whole: Recipe, seeds: Sequence[int] | None = None, *, rebuild: Collection[str] = ()) -> Path:
    """Run each cell of a recipe's grid in a folder of its own and sum the reports up above them. Returns that folder.

    `seeds` replaces the grid's seeds. Cells that are done are not run again, and one that was stopped continues.
    Raises ValueError for a grid that lists no values or a key twice.
    """
    places = {folder: cell for cell in cells_of(whole, seeds) for folder in [cell_folder(whole, cell)]}
    recipes = []
    for place, cell in places.items():
        settings = [(key, json.dumps(value)) for key, value in cell.items()]
        recipes.append(overridden(whole, [*settings, ("grid", "null"), ("output_dir", json.dumps(str(place)))]))
    folder = Path(whole.settings["output_dir"])
    claimed = RunFolder(folder, whole.name)
    runs = [open_recipe(recipe) for recipe in recipes]
    summarise = runs[0].asked.judge.summarise
    if summarise is None:
        raise ValueError(
            f"{whole.where('eval.call')}: `{whole.settings['eval']['call']}` sums up no grid. Give its function "
            "`@judge(KIND, summarise=…)` of rectune.run.judged, or leave `grid` out."
        )
    with claimed.lock():
        if is_main():
            claimed.claim()
    for run in runs:  # what no cell can be drawn from is said before the first is trained
        with run.folder.lock():
            run.place("split")
    names = set[str]().union(*(run.folder.names() for run in runs))
    for recipe in recipes:
        train_one(recipe, rebuild=rebuild, elsewhere=names)
    if is_main():
        reports = [json.loads((place / "report.json").read_text()) for place in places]
        links = [str(place.relative_to(folder)) for place in places]
        summary = summarise(reports, list(places.values()), links)
        write_atomic(folder / "grid.json", as_json(summary.data))
        write_atomic(folder / "report.html", summary.page)
        print(summary.text)
        print(f"report: {folder / 'report.html'}")
    wait()
    return folder


def cells_of(recipe: Recipe, seeds: Sequence[int] | None = None) -> list[Cell]:
    """The cells of a recipe's grid, the last key running fastest; the seed is always the last key."""
    values = _flat(recipe.settings.get("grid") or {}, "")
    drawn = list(seeds) if seeds is not None else values.pop("seed", [recipe.settings["seed"]])
    values = {**{key: listed for key, listed in values.items() if key != "seed"}, "seed": drawn}
    for key, listed in values.items():
        where = recipe.where(f"grid.{key}")
        if key.partition(".")[0] not in SECTIONS:
            raise ValueError(f"{where}: unknown section.{near(key.partition('.')[0], SECTIONS)}")
        if not isinstance(listed, list) or not listed:
            raise ValueError(f"{where}: got {shown(listed)}, but it must be a list of at least one value.")
        if len({json.dumps(value) for value in listed}) < len(listed):
            raise ValueError(f"{where}: a value is listed twice: {listed}.")
        _refuse_one_folder(where, listed)
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def cell_folder(recipe: Recipe, cell: Cell) -> Path:
    """Where a cell's run lies: one folder a key, such as `shots-16/seed-0`; null is written `all`. A key is called by its last word, and
    by the whole of it where another one ends in the same word."""
    ends = Counter(key.rpartition(".")[2] for key in cell)
    words = {key: key.rpartition(".")[2] if ends[key.rpartition(".")[2]] == 1 else key for key in cell}
    parts = [f"{words[key]}-{_written(value)}" for key, value in cell.items()]
    return Path(recipe.settings["output_dir"]).joinpath(*parts)


def _written(value: Any) -> str:
    """A value in the name of a folder."""
    return "all" if value is None else str(value).replace("/", "_")


def _refuse_one_folder(where: str, listed: list[Any]) -> None:
    """Raise ValueError for two values that are written alike in the name of a folder, such as `a/b` and `a_b`."""
    there: dict[str, Any] = {}
    for value in listed:
        name = _written(value)
        if name in there:
            raise ValueError(
                f"{where}: {there[name]!r} and {value!r} would lie in one folder, `…-{name}`: in its name '/' is written '_' and null "
                "'all'. Write one of them another way, or run it in a grid of its own `output_dir`."
            )
        there[name] = value


def _flat(section: dict[str, Any], prefix: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in section.items():
        dotted = f"{prefix}{key}"
        out.update(_flat(value, f"{dotted}.") if isinstance(value, dict) else {dotted: value})
    return out
