"""Book-Crossing: the raw files of Ziegler et al. (WWW 2005), ratings of books from 0 (implicit) to 10, without times."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from rectune.data_builders.files import find_file, read_rows

from rectune.log.cleaning import make_log
from rectune.log.log import Log

# A backslash before the quote that ends a title glues the title to its author: ...Readers)\";Michael Teitelbaum";"2000"
_GLUED = re.compile(r'\\";(?=[^"])')


def book_crossing(
    *,
    path: Path,
    implicit: Literal["drop", "dislike"] = "drop",
    user_core: int = 4,
    item_core: int = 0,
    order_seed: int = 0,
) -> Log:
    """Read `BX-Book-Ratings.csv` and `BX-Books.csv` (or `Ratings.csv` and `Books.csv`; plain or .gz) of a folder.

    Items are books with `title` and `author`; books without metadata are left out, with their ratings. A rating of 0 says
    that somebody had the book, not how they found it: 'drop' leaves these out, 'dislike' keeps them as ratings of 0, as
    TALLRec's script does. The files have no times: the events of a user stand in a random order drawn from `order_seed`.
    `user_core` and `item_core` as in `make_log`. Raises ValueError naming file and line for a damaged row.
    """
    events = _read(path, "*Ratings.csv", ["user", "item", "rating"])
    books = _read(path, "*Books.csv", None).rename({"ISBN": "item_id", "Book-Title": "title", "Book-Author": "author"})
    books = books.select("item_id", "title", "author").unique("item_id", keep="first", maintain_order=True)
    rated = events if implicit == "dislike" else events.filter(pl.col("rating").str.strip_chars() != "0")
    known = rated.filter(pl.col("item").is_in(books["item_id"].implode()))
    known = known.unique(["user", "item"], keep="last", maintain_order=True)
    shuffled = known[np.random.default_rng(order_seed).permutation(known.height)]
    in_order = shuffled.join(known.select("user").unique(maintain_order=True).with_row_index("_at"), on="user")
    log = make_log(
        in_order.sort("_at", maintain_order=True).drop("_at"),
        books.filter(pl.col("item_id").is_in(known["item"].implode())),
        source=f"Book-Crossing {path.name}",
        user_core=user_core,
        item_core=item_core,
        warn_unordered=False,
    )
    left_out = {
        "implicit_ratings": events.height - rated.height,
        "ratings_of_unknown_books": rated.height - known.height,
    }
    log.notes.update(order="random: the source has no times", left_out=left_out)
    return log


def _read(folder: Path, pattern: str, columns: list[str] | None) -> pl.DataFrame:
    file = find_file(folder, pattern)
    older = file.name.startswith("BX-")
    table = read_rows(
        file,
        separator=";" if older else ",",
        encoding="latin-1" if older else "utf-8",
        escape="\\" if older else None,
        mend=(lambda text: _GLUED.sub('";"', text)) if older else None,
    )
    if columns is not None and len(table.columns) != len(columns):
        raise ValueError(
            f"{file.name}: it has {len(table.columns)} columns ({', '.join(table.columns)}), but {len(columns)} are expected: user, book and rating."
        )
    return table if columns is None else table.rename(dict(zip(table.columns, columns, strict=True)))
