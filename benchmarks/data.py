"""Scoreboard S7: a log of string ids from its files to a split, beside pandas and Polars as people write them.

    python -m benchmarks.data FOLDER [--rows 10000000] [--kind parquet|csv] [--arms rectune polars pandas] [--pairs 3]

FOLDER/ROWS-KIND gets made-up events, five million a file and in disorder within it, once. Each arm reads them, drops what repeats user, item and time,
cuts to the 5-core, encodes users in the order of their first row and items in that of their first event, sorts by user and time and holds the last two events of each user
out; it runs in a process of its own on one thread, arms in turn. All must end with the same rows in the same order (a hash of users, items, events
and targets), else no time is printed. CPU seconds are those of the process without imports, memory is its peak.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

CORE, PER_FILE = 5, 5_000_000
NAMES = ["user", "item", "time"]


def make(folder: Path, rows: int, kind: str) -> list[Path]:
    """Files of made-up events: a tenth as many users, popularity by a power law, some events twice."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, start in enumerate(range(0, rows, PER_FILE)):
        file = folder / f"part-{number:03d}.{kind}"
        files.append(file)
        if file.exists():
            continue
        rng, count = np.random.default_rng(number), min(PER_FILE, rows - start)
        users = rng.integers(0, max(rows // 10, 1), count)
        items = np.minimum((rng.pareto(1.0, count) * 500).astype(np.int64), 199_999)
        times = 1_600_000_000 + number * 864_000 + rng.integers(0, 864_000, count)
        table = pl.DataFrame({"u": users * 7919 % 100_000_007, "i": items * 104_729 % 100_000_007, "time": times})
        table = table.select(user=pl.format("A{}X", "u"), item=pl.format("B0{}", "i"), time="time")
        table = pl.concat([table.head(-(count // 100)), table.head(count // 100)])
        part = file.with_suffix(".partial")
        table.write_csv(part) if kind == "csv" else table.write_parquet(part)
        part.rename(file)
    return files


def of_rectune(files: list[Path], kind: str) -> Any:
    """Users, items, codes of events and targets, by the line from log to split."""
    from rectune.data_builders.table import table

    from rectune.log.splits.leave_one_out import leave_one_out

    log = table(path=files, user="user", item="item", time="time", user_core=CORE, item_core=CORE)
    split = leave_one_out(log)
    return log.users, log.items["item_id"], log.user_codes, log.item_codes, split.validation.target, split.test.target


def of_polars(files: list[Path], kind: str) -> Any:
    """The same in Polars."""
    frame = pl.concat(pl.read_csv(f) if kind == "csv" else pl.read_parquet(f) for f in files)
    frame = frame.unique(NAMES, keep="first", maintain_order=True)
    order = frame.select(pl.col("user").unique(maintain_order=True))
    while True:
        kept = frame.filter((pl.len().over("user") >= CORE) & (pl.len().over("item") >= CORE))
        if kept.height == frame.height:
            break
        frame = kept
    first = order.join(frame, on="user", how="semi", maintain_order="left").with_row_index("u")
    frame = frame.join(first, on="user", how="left", maintain_order="left").sort("u", "time", maintain_order=True)
    shelf = frame.select(pl.col("item").unique(maintain_order=True)).with_row_index("i")
    frame = frame.join(shelf, on="item", how="left", maintain_order="left")
    left = frame.select((pl.len().over("u") - pl.int_range(pl.len()).over("u")).alias("left"))["left"].to_numpy()
    return first["user"], shelf["item"], frame["u"], frame["i"], np.flatnonzero(left == 2), np.flatnonzero(left == 1)


def of_pandas(files: list[Path], kind: str) -> Any:
    """The same in pandas."""
    import pandas as pd

    frame = pd.concat([pd.read_csv(f) if kind == "csv" else pd.read_parquet(f) for f in files], ignore_index=True)
    frame = frame.drop_duplicates(NAMES)
    order = frame["user"].drop_duplicates()
    while True:
        users, items = frame.groupby("user")["item"].transform("size"), frame.groupby("item")["user"].transform("size")
        kept = frame[(users >= CORE) & (items >= CORE)]
        if len(kept) == len(frame):
            break
        frame = kept
    users = order[order.isin(frame["user"].unique())]
    frame = frame.assign(u=pd.Index(users).get_indexer(frame["user"])).sort_values(["u", "time"], kind="stable")
    codes, items = pd.factorize(frame["item"])
    left = frame.groupby("u").cumcount(ascending=False).to_numpy()
    return users, items, frame["u"], codes, np.flatnonzero(left == 1), np.flatnonzero(left == 0)


ARMS: dict[str, Callable[[list[Path], str], Any]] = {"rectune": of_rectune, "polars": of_polars, "pandas": of_pandas}


def digest(found: Iterable[Any]) -> str:
    """A hash of ids and arrays, whatever library holds them."""
    users, items, *arrays = found
    whole = hashlib.sha256()
    for ids in (users, items):
        for (piece,) in pl.Series(ids, dtype=pl.String).to_frame().iter_slices(1_000_000):
            whole.update("\n".join(piece.to_list()).encode() + b"\n")
    for values in arrays:
        whole.update(np.ascontiguousarray(np.asarray(values), dtype=np.int64).tobytes())
    return whole.hexdigest()[:16]


def one(arm: str, files: list[Path], kind: str) -> None:
    """Run an arm in this process and print what it took as JSON."""
    import pandas  # noqa: F401  imported by every arm, so that none is charged for it

    warnings.simplefilter("ignore")
    began, wall = time.process_time(), time.monotonic()
    found = ARMS[arm](files, kind)
    seconds, waited = time.process_time() - began, time.monotonic() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    events = len(found[2])
    print(json.dumps({"s": seconds, "wall": waited, "GB": peak, "events": events, "hash": digest(found)}))


def run() -> int:
    """Make the files, run the arms in turn and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--kind", choices=["parquet", "csv"], default="parquet")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--pairs", type=int, default=3, help="how often each arm runs")
    parser.add_argument("--one", choices=list(ARMS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    files = make(args.folder / f"{args.rows}-{args.kind}", args.rows, args.kind)
    if args.one:
        one(args.one, files, args.kind)
        return 0
    threads = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in args.arms}
    for _ in range(args.pairs):
        for arm in args.arms:
            command = [sys.executable, "-m", "benchmarks.data", *sys.argv[1:], "--one", arm]
            out = subprocess.run(command, env={**os.environ, **threads}, check=True, stdout=subprocess.PIPE, text=True)
            found[arm].append(json.loads(out.stdout))
            print(f"{arm}: {out.stdout.strip()}", file=sys.stderr, flush=True)
    if len({entry["hash"] for entries in found.values() for entry in entries}) > 1:
        print("the arms do not end with the same rows in the same order: no time counts", file=sys.stderr)
        return 1
    first = found[args.arms[0]]
    print(
        f"{args.rows:,} rows of {args.kind}, {first[0]['events']:,} left; {platform.processor() or platform.machine()}, one thread"
    )
    print("| | CPU s | rows a CPU s | wall s | peak GB | ratio |\n|---|---|---|---|---|---|")
    for arm, entries in found.items():
        s, wall, peak = (statistics.median(entry[key] for entry in entries) for key in ("s", "wall", "GB"))
        ratio = statistics.median(b["s"] / a["s"] for a, b in zip(first, entries, strict=True))
        print(f"| {arm} | {s:.1f} | {args.rows / s:,.0f} | {wall:.1f} | {peak:.1f} | {ratio:.1f}x |")
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
