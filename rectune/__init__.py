"""rectune: from an interaction log to a tuned language model that recommends real items, and an honest report."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ != "rectune":
    raise ModuleNotFoundError(f"No module named {__name__!r}: this package is `rectune`.")

__version__ = "0.1.0"

# data_builders/, templates/, recipes/ and eval/ stand beside this folder in a clone and inside it once installed.
if not (Path(__file__).parent / "data_builders").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

_PUBLIC = {
    "ItemIndex": "rectune.indexing.item_index",
    "Log": "rectune.log.log",
    "Ranking": "rectune.decoding.ranking",
    "Recipe": "rectune.recipe.load",
    "Recommender": "rectune.bundle.recommender",
    "Split": "rectune.log.split",
    "Template": "rectune.prompts.template",
    "evaluate": "rectune.run.single",
    "load_recipe": "rectune.recipe.load",
    "make_log": "rectune.log.cleaning",
    "train": "rectune.run.train",
}

__all__ = [
    "ItemIndex",
    "Log",
    "Ranking",
    "Recipe",
    "Recommender",
    "Split",
    "Template",
    "evaluate",
    "load_recipe",
    "make_log",
    "train",
]

if TYPE_CHECKING:
    from rectune.bundle.recommender import Recommender
    from rectune.decoding.ranking import Ranking
    from rectune.indexing.item_index import ItemIndex
    from rectune.log.cleaning import make_log
    from rectune.log.log import Log
    from rectune.log.split import Split
    from rectune.prompts.template import Template
    from rectune.recipe.load import Recipe, load_recipe
    from rectune.run.single import evaluate
    from rectune.run.train import train


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `import rectune` costs milliseconds."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rectune' has no attribute {name!r}. Public names: {', '.join(__all__)}.")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
