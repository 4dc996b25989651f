"""Another index's groups, then one token of its own an item (HID)."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from rectune.indexing.item_index import ItemIndex, from_levels
from rectune.log.split import Split
from rectune.recipe.calls import bind, resolve_call
from rectune.recipe.load import Recipe


def hybrid(split: Split, *, base: dict[str, Any], seed: int = 0) -> ItemIndex:
    """Replace the last token of each name of another index by one that only this item has; it means the title.

    `base` is that index as a recipe would write it: {call: collaborative, clusters: 20}.
    Its last token should be a number within a group, as in `collaborative` and `category_path` (Hua et al. 2023, How to
    Index Item IDs for Recommendation Foundation Models, hybrid indexing). `seed` goes to the base, unless it sets one.
    Raises ValueError or TypeError for a `base` that can't be called so, and one without tokens.
    """
    recipe = Recipe("hybrid", {"index": {"base": base}})
    function = resolve_call(recipe, "index.base")
    if "vectors" in inspect.signature(function).parameters:
        raise ValueError(
            f"`index.base.call`: `{base['call']}` names items by their vectors, and a hybrid gives it none. Take an index "
            "without vectors, e.g. collaborative."
        )
    arguments = bind(recipe, "index.base", function, given=("split",))
    if "seed" in inspect.signature(function).parameters:
        arguments.setdefault("seed", seed)
    found = function(split, **arguments)
    if not isinstance(found, ItemIndex) or found.titles:
        raise ValueError(f"`index.base.call`: `{base['call']}` gives no names made of tokens; take another index.")
    return own_last_token(found, split.log.items["title"].to_list())


def own_last_token(index: ItemIndex, titles: list[str]) -> ItemIndex:
    """The index with the last token of each name replaced by a token of that item alone, which means its title."""
    items = np.arange(len(index))
    last = (index.codes >= 0).sum(axis=1) - 1
    kept = index.codes.copy()
    kept[items, last] = -1
    levels = np.full_like(kept, -1)
    meanings = []
    for level in range(kept.shape[1]):
        used = np.unique(kept[kept[:, level] >= 0, level])
        has = kept[:, level] >= 0
        levels[has, level] = np.searchsorted(used, kept[has, level])
        ends = last == level
        # above the kept codes, so that an item's own token is nobody's group
        levels[ends, level] = len(used) + items[ends]
        meanings.append([index.meanings[code] for code in used] + titles)
    return from_levels(levels, meanings=meanings)
