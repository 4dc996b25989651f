"""Running a recipe: one run, or every cell of its grid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from rectune.recipe.load import Recipe, load_recipe, overridden
from rectune.run.grid import train_grid
from rectune.run.single import train_one


def train(
    recipe: Recipe | str | Path, overrides: Sequence[tuple[str, str]] = (), *, seeds: Sequence[int] | None = None,
    rebuild: Collection[str] = (),
) -> Path:  # fmt: skip
    """Run a recipe from log to report, or continue where it stopped. Returns the run folder.

    Stages that are already there are not built again. A recipe with a section `grid` is run once for each of its cells, with `seeds`
    once for each of them, in folders of their own below the one that is returned. `rebuild`: names of boxes, or 'all', that are built
    anew with everything that reads them. Raises ValueError, TypeError or OSError with one
    clear line when the recipe, its data or the folder are not as they must be.
    """
    whole = overridden(recipe, overrides) if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if seeds is None and not whole.settings.get("grid"):
        return train_one(whole, rebuild=rebuild)
    return train_grid(whole, seeds, rebuild=rebuild)
