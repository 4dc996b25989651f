"""An index from a file."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from rectune.indexing.item_index import ItemIndex, from_levels, repair_with_digit
from rectune.indexing.name_files import codes_of, read_names
from rectune.log.split import Split


def given(split: Split, *, path: Path, extra_items: bool = False) -> ItemIndex:
    """Read names from JSON (plain or gzipped): item id -> list of tokens such as '<a_12>', as LC-Rec writes them.

    The letter is the level. OneRec's '<s_a_12>' and its files are read, too (see `read_names` and `codes_of`). Items that share a name get one more
    level that tells them apart, with a warning. `extra_items`: the file may name items that the catalogue does not hold. Raises ValueError for such an
    item otherwise, for one of the catalogue that the file does not name, for names of different length, and for a token of another form.
    """
    names = read_names(path)
    ids = split.log.items["item_id"].to_list()
    extra = sorted(set(names) - set(ids))
    if extra and not extra_items:
        raise ValueError(
            f"{path.name}: it names item `{extra[0]}`, which the catalogue does not hold ({len(extra)} such items). Is it the index "
            "of another data set? If the log left these items out, set `index.extra_items: true`."
        )
    rows, prefixes = [], []
    for item_id in ids:
        if item_id not in names:
            raise ValueError(f"{path.name}: no name for item `{item_id}`. Is it the index of another data set?")
        codes, prefix = codes_of(names[item_id], item_id, path)
        rows.append(codes)
        prefixes.append(prefix)
    other = next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), None)
    if other is not None:
        raise ValueError(
            f"{path.name}: item `{ids[0]}` has {len(rows[0])} tokens and item `{ids[other]}` has {len(rows[other])}; all names must be "
            "equally long."
        )
    other = next((i for i, prefix in enumerate(prefixes) if prefix != prefixes[0]), None)
    if other is not None:
        raise ValueError(
            f"{path.name}: tokens of item `{ids[0]}` begin with '<{prefixes[0]}a_' and those of item `{ids[other]}` with "
            f"'<{prefixes[other]}a_'; all names must be of one form."
        )
    levels, colliding = repair_with_digit(np.array(rows, dtype=np.int32))
    if colliding.any():
        warnings.warn(
            f"{path.name}: {int(colliding.sum())} items share a name with another one, `{ids[int(colliding.argmax())]}` among them; "
            "one more level tells them apart.",
            stacklevel=2,
        )
    return from_levels(levels, colliding=colliding, prefix=prefixes[0])
