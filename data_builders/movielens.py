"""MovieLens: 100k, 1m, latest-small, 25m, 32m; from a folder or zip, or the official download."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl
from rectune.data_builders.files import download, find_file, published_md5, read_rows, unzip

from rectune.log.cleaning import make_log
from rectune.log.log import Log
from rectune.runtime.cache import cache_folder, writable_folder

Size = Literal["100k", "1m", "latest-small", "25m", "32m"]
SITE = "https://files.grouplens.org/datasets/movielens"
# MD5 of the archives that never change; the others are checked against the MD5 file that lies beside them.
ARCHIVES: dict[Size, tuple[str, str | None]] = {
    "100k": ("ml-100k.zip", "0e33842e24a9c977be4e0107933c0723"),
    "1m": ("ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906"),
    "latest-small": ("ml-latest-small.zip", None),
    "25m": ("ml-25m.zip", "6b51fb2759a8657d3bfcbfc42b592ada"),
    "32m": ("ml-32m.zip", None),
}


def movielens(*, size: Size, path: Path | None = None, user_core: int = 0, item_core: int = 0) -> Log:
    """Read MovieLens from `path` (the unpacked folder or the zip), or download it once into the cache.

    Items are films with `title` and `genres`; ratings and times are kept. In 100k the item file is latin-1 and genres
    are flags; the three later sizes have one layout, so that `size` is their name only. Raises FileNotFoundError where a file of the size's layout is not there.
    """
    folder = _folder(size, path)
    ratings, films = (_old if size in ("100k", "1m") else _new)(folder, size)
    source = f"MovieLens {size}"
    return make_log(ratings, films, source=source, user_core=user_core, item_core=item_core, warn_unordered=False)


def _folder(size: Size, path: Path | None) -> Path:
    if path is None:
        name, md5 = ARCHIVES[size]
        archive = cache_folder() / "movielens" / name
        if not archive.exists():
            archive = writable_folder() / "movielens" / name
            download(f"{SITE}/{name}", archive, md5=md5 or published_md5(f"{SITE}/{name}.md5"))
        path = archive
    if path.suffix == ".zip":
        unpacked = cache_folder() / "movielens" / f"{path.stem}-{path.stat().st_size}"
        if not unpacked.is_dir():
            unpacked = unzip(path, writable_folder() / "movielens" / unpacked.name)
        path = unpacked
    inner = [child for child in path.iterdir() if child.is_dir() and child.name.startswith("ml-")]
    return inner[0] if len(inner) == 1 else path


def _new(folder: Path, size: Size) -> tuple[pl.DataFrame, pl.DataFrame]:
    ratings = read_rows(find_file(folder, "ratings.csv"), separator=",")
    films = read_rows(find_file(folder, "movies.csv"), separator=",")
    events = ratings.select(user="userId", item="movieId", rating="rating", time="timestamp")
    genres = (
        pl.col("genres").str.replace("(no genres listed)", "", literal=True).str.replace_all("|", ", ", literal=True)
    )
    return events, films.select(pl.col("movieId").alias("item_id"), "title", genres)


def _old(folder: Path, size: Size) -> tuple[pl.DataFrame, pl.DataFrame]:
    columns = ["user", "item", "rating", "time"]
    if size == "1m":
        events = read_rows(find_file(folder, "ratings.dat"), separator="::", columns=columns)
        films = read_rows(
            find_file(folder, "movies.dat"), separator="::", columns=["item_id", "title", "genres"], encoding="latin-1"
        )
        return events, films.with_columns(pl.col("genres").str.replace_all("|", ", ", literal=True))
    events = read_rows(find_file(folder, "u.data"), separator="\t", columns=columns)
    genre_rows = read_rows(find_file(folder, "u.genre"), separator="|", columns=["genre", "number"])
    genres = genre_rows.sort(pl.col("number").cast(pl.Int64))["genre"].to_list()
    head = ["item_id", "title", "released", "video", "address"]
    films = read_rows(
        find_file(folder, "u.item"), separator="|", columns=[*head, *genres], encoding="latin-1", quoted=False
    )
    named = pl.concat_list(
        [pl.when(pl.col(g) == "1").then(pl.lit(g)) for g in genres if g != "unknown"]
    ).list.drop_nulls()
    return events, films.select("item_id", "title", named.list.join(", ").alias("genres"))
