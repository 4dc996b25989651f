"""Item ids from the category tree: the words of the path, then a number within it (SemID)."""

from __future__ import annotations

import numpy as np

from rectune.indexing.collaborative import with_leaves
from rectune.indexing.item_index import ItemIndex, from_levels
from rectune.log.split import Split

NO_CATEGORY = "none"


def category_path(
    split: Split,
    *,
    column: str = "categories",
    separator: str = ",",
    skip: int = 0,
    max_depth: int = 8,
    seed: int = 0,
) -> ItemIndex:
    """Name each item by its category path, such as Makeup, Nails, Nail Polish, then its number within the path.

    A level is numbered over the whole tree, not within each parent: 'Nails' below Makeup and 'Nails' below Tools are one
    token with one meaning, as in the paper (Hua et al. 2023, How to Index Item IDs for Recommendation Foundation
    Models, semantic indexing). New embeddings start from the words. `skip` leaves out so many levels from the root: 1
    where the whole catalogue has one root, as the paper's code does. Levels below `max_depth` are cut off; 8 cuts none
    of the paper's. Items without a category go to a branch 'none'. A separator within a word splits it, too.
    Raises ValueError for a column that the items don't have, an empty `separator` and depths out of range.
    """
    if column not in split.log.items.columns:
        raise ValueError(
            f"`column`: the items have no column `{column}`. They have: {', '.join(split.log.items.columns)}."
        )
    if not separator:
        raise ValueError("`separator` is empty; type what stands between two categories, such as ',' or ' > '.")
    if skip < 0 or max_depth < 1:
        raise ValueError(f"`skip` must be at least 0 and `max_depth` at least 1, got {skip} and {max_depth}.")
    paths = []
    for text in split.log.items[column].to_list():
        words = [word.strip() for word in text.split(separator) if word.strip()]
        paths.append(words[skip:][:max_depth] or [NO_CATEGORY])
    depth = max(map(len, paths))
    known = [sorted({path[level] for path in paths if len(path) > level}) for level in range(depth)]
    codes = [{word: code for code, word in enumerate(words)} for words in known]
    coded = [tuple(codes[level][word] for level, word in enumerate(path)) for path in paths]
    return from_levels(with_leaves(coded, rng=np.random.default_rng(seed)), meanings=known)
