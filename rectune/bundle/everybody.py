"""Lists for everybody: users are read as they come, lists are written in shards, by any number of processes, and a killed job goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from rectune.bundle.manifest import FILE
from rectune.bundle.recommender import Recommender, Wish
from rectune.bundle.user_lines import user_line
from rectune.runtime.files import sha256, stamp, write_atomic
from rectune.runtime.processes import alone, gather, is_main, rank, wait, world_size
from rectune.runtime.progress import Progress
from rectune.runtime.text_files import first_line, stream_lines

ABOUT = "lists.json"
SHARD = 4096  # users of a shard: what a kill costs each process at most


@dataclass(frozen=True)
class Shard:
    """Some users of a file, its rows `start` to `stop`; `number` among all shards, which do not depend on processes."""

    number: int
    file: Path
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The file of its lists."""
        return f"part-{self.number:06d}.parquet"

    @property
    def users(self) -> int:
        """How many they are."""
        return self.stop - self.start


def rank_everybody(
    recommender: Recommender, users: Path, to: Path, *, k: int, hide_seen: bool = True, allow: Sequence[str] | None = None,
    deny: Sequence[str] = (), size: int = SHARD, named: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Write the `k` best items of every user of a file, or of every file of a folder, to Parquet files in `to`; returns what `lists.json` says.

    A file is Parquet with the columns `user` and `items` (a list of item ids, oldest first), or JSON lines with these keys. Columns that are
    written: `user`, `items`, best first, `scores`. A shard is written whole or not at all; what is there is kept, by whatever number of
    processes it was made. Items that the catalogue does not hold count for nothing, and are counted. Raises ValueError for a folder that holds lists of something else, and for a row
    that is none.
    """
    recommender.wish([], k)  # a model that lists nothing, or a k that it does not search
    shards = shards_of(users, size)
    asked = {
        "model": identity(recommender, named or recommender.bundle.name), "users": stamp(users), "k": k, "hide_seen": hide_seen,
        "allow": None if allow is None else sorted(allow), "deny": sorted(deny), "users_in_a_shard": size,
    }  # fmt: skip
    if is_main():
        if not (to / ABOUT).exists():
            _read_once(shards)
        _begin(to, asked)
    # As one process finds it: what others finish meanwhile must not change who does what.
    missing = set(gather(_missing(shards, to) if is_main() else [])[0])
    allowed = recommender.bundle.by_id.allowed(allow, deny)
    total, unknown = sum(shard.users for shard in shards), 0
    left = [shard for shard in shards if shard.name in missing]
    done = total - sum(shard.users for shard in left)
    own = left[rank() :: world_size()]
    with Progress(total, "ranking", "users", at=done, quiet=not is_main()) as shown_so_far, alone():
        for shard, names, histories in read_shards(own):
            unknown += _write(recommender, to / shard.name, names, histories, k, hide_seen, allowed)
            there = {file.name for file in to.glob("part-*.parquet")}
            shown_so_far.to(sum(s.users for s in shards if s.name in there))
    unknown = sum(gather(unknown))
    if gone := _missing(shards, to):
        raise ValueError(
            f"`--to`: {len(gone)} files such as {gone[0]} went away while others were written. The same command makes them again."
        )
    if is_main():
        write_atomic(
            to / ABOUT,
            json.dumps({**asked, "lists": total, "shards": len(shards), "complete": True}, ensure_ascii=False),
        )
    wait()
    return {"lists": total, "shards": len(shards), "kept": done, "unknown": unknown}


def identity(recommender: Recommender, named: str | Path) -> dict[str, Any]:
    """What tells a model from another: a bundle's manifest, the boxes of a run, or a repository's commit; and how it ranks."""
    folder, bundle = Path(named), recommender.bundle
    how = {"rank": repr(bundle.rank), "prior_weight": bundle.prior_weight, "items": bundle.items.height}
    if (folder / FILE).exists():
        return {**how, "manifest": sha256(folder / FILE)}
    if (folder / "run.json").exists():
        added = folder / "added"
        boxes = json.loads((folder / "run.json").read_text(encoding="utf-8"))["stages"]
        return {**how, **boxes, "added": stamp(added) if added.exists() else None}
    return {**how, "named": str(named), "commit": bundle.commit}


def shards_of(users: Path, size: int) -> list[Shard]:
    """The shards of a file or a folder. Raises FileNotFoundError or ValueError where there are no users."""
    if size < 1:
        raise ValueError(f"`--shard`: got {size}, but a file of lists holds at least 1 user.")
    if not users.exists():
        raise FileNotFoundError(f"`--users`: `{users}` is not there.")
    files = sorted(f for f in users.rglob("*") if _kind(f)) if users.is_dir() else [users]
    if not files or not _kind(files[0]):
        raise ValueError(f"`--users`: `{users}` is no .parquet, .jsonl or .jsonl.gz file, and no folder of them.")
    found = list[Shard]()
    for file in files:
        count = _count(file)
        for start in range(0, count, size):
            found.append(Shard(len(found), file, start, min(start + size, count)))
    if not found:
        raise ValueError(f"{users.name}: the file names no user.")
    return found


def read_shards(shards: Sequence[Shard]) -> Iterator[tuple[Shard, list[str], list[list[str]]]]:
    """Users and histories of some shards, which are in the order of their files. Raises ValueError naming file and row."""
    for file in dict.fromkeys(shard.file for shard in shards):
        own = [shard for shard in shards if shard.file == file]
        yield from _from_parquet(file, own) if file.suffix == ".parquet" else _from_lines(file, own)


def _missing(shards: Sequence[Shard], to: Path) -> list[str]:
    return [shard.name for shard in shards if not (to / shard.name).exists()]


def _read_once(shards: Sequence[Shard]) -> None:
    """Read every row before anything is written: a job that stops at a bad one in the middle would have been for nothing."""
    with Progress(len(shards), "checking users", "files of lists") as shown_so_far:
        for number, _ in enumerate(read_shards(shards), 1):
            shown_so_far.to(number)


def _kind(file: Path) -> bool:
    return file.is_file() and file.name.endswith((".parquet", ".jsonl", ".jsonl.gz"))


def _count(file: Path) -> int:
    if file.suffix != ".parquet":
        return sum(1 for _ in stream_lines(file))
    try:
        table = pl.scan_parquet(file, glob=False)
        schema, number = table.collect_schema(), table.select(pl.len()).collect()["len"][0]
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{file.name}: no whole Parquet file ({first_line(error)}).") from None
    check_columns({name: str(kind) for name, kind in schema.items()}, "List(", f"{file.name}: ")
    return int(number)


def check_columns(kinds: dict[str, str], lists: str, where: str = "") -> None:
    """Raise ValueError where a table of `kinds` has no column `user`, or none `items` of a kind that begins with `lists`."""
    for name in ("user", "items"):
        if name not in kinds:
            raise ValueError(f"{where}no column `{name}`. It has: {', '.join(kinds)}.")
    if not kinds["items"].startswith(lists):
        raise ValueError(
            f"{where}column `items` holds {kinds['items']}, but it must hold lists of item ids, oldest first."
        )


def histories_in(part: pl.DataFrame) -> list[list[str]]:
    """The column `items` of some users, without what is missing."""
    return [list(filter(None, items or ())) for items in part["items"].to_list()]


def _from_parquet(file: Path, shards: Sequence[Shard]) -> Iterator[tuple[Shard, list[str], list[list[str]]]]:
    table = pl.scan_parquet(file, glob=False).select(
        pl.col("user").cast(pl.String), pl.col("items").cast(pl.List(pl.String))
    )
    for shard in shards:
        try:
            part = table.slice(shard.start, shard.users).collect()
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{file.name}: rows from {shard.start} on cannot be read ({first_line(error)}).") from None
        if part["user"].null_count():
            at = shard.start + int(part["user"].is_null().arg_max() or 0)
            raise ValueError(f"{file.name}: row {at} has no user.")
        yield shard, part["user"].to_list(), histories_in(part)


def _from_lines(file: Path, shards: Sequence[Shard]) -> Iterator[tuple[Shard, list[str], list[list[str]]]]:
    lines, at = stream_lines(file), 0
    for shard in shards:
        for _ in islice(lines, shard.start - at):
            pass
        names, histories = list[str](), list[list[str]]()
        for number, line in islice(lines, shard.users):
            read = user_line(line, f"{file.name}:{number}")
            names.append(str(read.user))
            histories.append(read.items)
        at = shard.stop
        yield shard, names, histories


def lists_of(
    recommender: Recommender, users: list[str], histories: list[list[str]], k: int, hide_seen: bool, allowed: Any
) -> tuple[pl.DataFrame, list[int]]:
    """The lists of some users, and how many items of each history the catalogue does not hold. `allowed`: which items may be listed, or None."""
    named = recommender.bundle.by_id
    codes = [named.those_known(history) for history in histories]
    wishes = [
        Wish(tuple(own), k, frozenset(own if hide_seen else ()), None, user)
        for own, user in zip(codes, users, strict=True)
    ]
    ranking = recommender.rank(wishes, allowed)
    ids = recommender.items["item_id"].to_list()
    lists = [[ids[item] for item in row[:k] if item >= 0] for row in ranking.items.tolist()]
    scores = [row[: len(listed)] for row, listed in zip(ranking.scores.tolist(), lists, strict=True)]
    columns = (
        pl.Series("user", users, dtype=pl.String), pl.Series("items", lists, dtype=pl.List(pl.String)),
        pl.Series("scores", scores, dtype=pl.List(pl.Float32)),
    )  # fmt: skip
    return pl.DataFrame(columns), [len(history) - len(own) for history, own in zip(histories, codes, strict=True)]


def _write(
    recommender: Recommender,
    file: Path,
    users: list[str],
    histories: list[list[str]],
    k: int,
    hide_seen: bool,
    allowed: Any,
) -> int:
    """Rank the users of a shard and write their lists; how many items of histories were unknown."""
    lists, unknown = lists_of(recommender, users, histories, k, hide_seen, allowed)
    beside = file.with_suffix(f".{os.getpid()}.partial")
    lists.write_parquet(beside)
    os.replace(beside, file)
    return sum(unknown)


def _begin(to: Path, asked: dict[str, Any]) -> None:
    """Make the folder, or check that it holds lists of the same; half-written files go."""
    about = to / ABOUT
    if to.exists() and not to.is_dir():
        raise ValueError(f"`--to`: `{to}` is no folder.")
    if about.exists():
        there = json.loads(about.read_text(encoding="utf-8"))
        differs = [key for key in asked if there.get(key) != json.loads(json.dumps(asked[key]))]
        if differs:
            raise ValueError(
                f"`--to`: `{to}` holds lists that were made of another `{differs[0]}`. Name another folder, or remove this one."
            )
    elif to.exists() and any(to.iterdir()):
        raise ValueError(f"`--to`: `{to}` holds other files. Name an empty folder, or a new one.")
    to.mkdir(parents=True, exist_ok=True)
    for half in to.glob("part-*.partial"):
        half.unlink()
    if not about.exists():
        write_atomic(about, json.dumps({**asked, "complete": False}, ensure_ascii=False))
