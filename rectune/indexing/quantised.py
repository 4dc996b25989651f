"""From a fitted quantiser to an index, and to the names of items that come later."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rectune.indexing.item_index import Codes, ItemIndex, colliding_items, from_levels
from rectune.indexing.quantiser import Quantiser, Vectors, squared_distances
from rectune.indexing.repair import Repair, repaired
from rectune.log.split import Split
from rectune.vectors.item_vectors import ItemVectors


def quantised_index(
    split: Split,
    vectors: ItemVectors,
    quantiser: Quantiser,
    found: Codes,
    distances: NDArray[np.float32],
    *,
    repair: Repair,
    blocks: Sequence[int] | None = None,
    complete: bool = False,
) -> ItemIndex:
    """The index that codes give: names made unique, first codes put into words, and all that names a later item kept.

    `found`: (items, levels). `distances`: to the codes of the last level, (items, codes). `blocks`: which blocks of
    `vectors` the quantiser reads, all of them unless given. `complete`: tokens for all codes, used or not, named as OneRec names them
    (see `from_levels`); a level that tells items apart has the digits that are used.
    """
    read = list(range(len(vectors.blocks))) if blocks is None else list(blocks)
    content = vectors.only(read)
    words = nearest_titles(content.joined(), found[:, 0], split.log.items["title"].to_list())
    unique = repaired(found, distances, repair=repair)
    kept = {"blocks": np.array(read, dtype=np.float32), "scales": content.scales()}
    sizes = [len(book) for book in quantiser.codebooks] if complete else []
    if complete and unique.shape[1] > len(sizes):
        sizes.append(int(unique[:, -1].max()) + 1)
    return from_levels(
        unique, meanings=[words], colliding=colliding_items(found), fitted={**quantiser.arrays(), **kept}, sizes=sizes,
        prefix="s_" if complete else "",
    )  # fmt: skip


def nearest_titles(vectors: Vectors, labels: NDArray[np.int32], titles: Sequence[str], *, most: int = 8) -> list[str]:
    """For each code of the first level the titles of the items nearest to the mean of its items."""
    words = []
    for code in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == code)
        if not len(members):
            words.append("")
            continue
        centre = vectors[members].mean(axis=0)
        nearest = members[np.argsort(-(vectors[members] @ centre), kind="stable")[:most]]
        words.append(" ".join(titles[i] for i in nearest))
    return words


def names_of_new(index: ItemIndex, vectors: ItemVectors) -> Codes:
    """Names for items that come later, made of the tokens that the index already has; (items, levels), as in `index.codes`.

    Each item gets its nearest codes, level by level. Where the name is taken it gets the next free digit, if the index tells
    items apart by one, else the next nearest last code. Raises ValueError when no name is left under its prefix, and for
    an index that was not fitted on vectors.
    """
    if "codebook0" not in index.fitted:
        raise ValueError(
            "this index cannot name a new item without tuning again: its names were not made from item vectors. Indexes by "
            "residual k-means, balanced k-means, RQ-VAE and LETTER can."
        )
    quantiser = Quantiser.from_arrays({k: v for k, v in index.fitted.items() if k not in ("blocks", "scales")})
    content = vectors.only([int(i) for i in index.fitted["blocks"]])
    levels = len(quantiser.codebooks)
    places = [token_places(index, level) for level in range(index.codes.shape[1])]
    residual = quantiser.encode(content.joined(index.fitted["scales"]))
    chosen = np.zeros((len(residual), levels - 1), dtype=np.int64)
    for level in range(levels - 1):
        used = np.array(sorted(places[level]))
        book = quantiser.codebooks[level][used]
        nearest = squared_distances(residual, book).argmin(1)
        chosen[:, level] = used[nearest]
        residual = residual - book[nearest]
    last = np.array(sorted(places[levels - 1]))
    order = last[squared_distances(residual, quantiser.codebooks[-1][last]).argsort(1, kind="stable")]
    taken = {tuple(row) for row in index.codes.tolist()}
    out = np.zeros((len(residual), index.codes.shape[1]), dtype=np.int32)
    for item in range(len(residual)):
        prefix = [places[level][int(code)] for level, code in enumerate(chosen[item])]
        out[item] = _free_name(prefix, [places[levels - 1][int(code)] for code in order[item]], places[levels:], taken)
        taken.add(tuple(out[item].tolist()))
    return out


def token_places(index: ItemIndex, level: int) -> dict[int, int]:
    """For each code that is used on a level its position in the vocabulary."""
    used = np.unique(index.codes[:, level])
    return {int(index.vocabulary[place].rpartition("_")[2][:-1]): int(place) for place in used if place >= 0}


def _free_name(
    prefix: list[int], last: list[int], digits: list[dict[int, int]], taken: set[tuple[int, ...]]
) -> list[int]:
    for code in last:
        for digit in [[place] for place in digits[0].values()] if digits else [[]]:
            name = [*prefix, code, *digit]
            if tuple(name) not in taken:
                return name
    raise ValueError(f"no name is left for a new item: all {len(last)} last codes under its prefix are taken.")
