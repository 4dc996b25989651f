"""What the baselines, the prior and the figures take of memory and time on a made-up log, under several bounds of `eval.memory`.

    python -m benchmarks.baselines [--users 30000] [--items 20000] [--memory 0.5 2 8] [--only NAME …] [--out FILE]

Each step runs in a process of its own. The peak is that of its resident memory (VmHWM, Linux) above what is resident when the log is cut
and the libraries are loaded. SASRec scores with random weights; it takes no more with trained ones. NDCG@10 must be the same under every bound, or the script ends with an error.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rectune.eval.intervals import Bootstrap

from rectune.baselines import prior
from rectune.baselines.ease import ease, ease_with_markov
from rectune.baselines.item_knn import item_knn
from rectune.baselines.markov import markov
from rectune.baselines.popularity import popularity
from rectune.baselines.repeat_last import repeat_last
from rectune.baselines.sasrec_network import SasRec
from rectune.baselines.sasrec_settings import SasRecSettings
from rectune.baselines.scoring import Scorer, discounted, list_rows
from rectune.log.cleaning import make_log
from rectune.log.split import Split
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.runtime.resident import resident
from rectune.runtime.room import GB, Room


def made_up(users: int, items: int, seed: int = 0) -> Split:
    """About ten events a user, half of them the item after the last one, the rest by a popularity that falls as rank ** -0.7."""
    draw = np.random.default_rng(seed)
    lengths = 5 + draw.poisson(5, users)
    user = np.repeat(np.arange(users), lengths)
    share = np.arange(1, items + 1) ** -0.7
    item = draw.choice(items, len(user), p=share / share.sum())
    item[:items] = draw.permutation(items)  # every item is touched
    goes_on = (draw.random(len(user)) < 0.5) & (np.arange(len(user)) >= items)
    goes_on[np.cumsum(lengths) - lengths] = False
    for at in np.flatnonzero(goes_on):
        item[at] = (item[at - 1] + 1) % items
    frame = pl.DataFrame({"user": user, "item": item, "time": np.arange(len(user), dtype=np.float64)})
    return leave_one_out(make_log(frame.with_columns(pl.col("user", "item").cast(pl.String)), source="made up"))


def figure(split: Split, score: Scorer, room: Room) -> float:
    """NDCG@10 of the test rows, seen items hidden."""
    place = list_rows(split, split.test, score, width=20, room=room)[0].place
    return float(discounted(place).mean())


def _ease(split: Split, room: Room) -> float:
    row = ease(split, room=room)
    return figure(split, row.score, room) + figure(split, ease_with_markov(split, row, room=room).score, room)


def _sasrec(split: Split, room: Room) -> float:
    torch.manual_seed(0)
    model = SasRec(split.log.n_items, SasRecSettings())
    return figure(split, lambda rows: model.log_probabilities(split, rows), room)


def _prior(split: Split, room: Room) -> float:
    with tempfile.TemporaryDirectory() as folder:
        prior.fit(split, Path(folder), memory=room.gigabytes)
        score = prior.load(Path(folder))
        return figure(split, lambda rows: score(split, rows), room)


def _intervals(split: Split, room: Room) -> float:
    bootstrap = Bootstrap(split.test.user, room=room)
    return sum(bootstrap.mean(np.arange(len(split.test)) % (k + 2) / k)[1] for k in range(1, 21))


DO: dict[str, Callable[[Split, Room], float]] = {
    "popularity": lambda split, room: figure(split, popularity(split).score, room),
    "repeat last": lambda split, room: figure(split, repeat_last(split).score, room),
    "Markov": lambda split, room: figure(split, markov(split).score, room),
    "item-KNN": lambda split, room: figure(split, item_knn(split, room=room).score, room),
    "intervals": _intervals,
    "SASRec, scoring": _sasrec,
    "EASE and EASE + Markov": _ease,
    "prior": _prior,
}


def measure(name: str, users: int, items: int, memory: float) -> dict[str, Any]:
    """Run a step in this process: its figure, peak in GB above the start, and seconds."""
    split = made_up(users, items)
    list_rows(
        split, split.test.take(np.arange(2)), markov(split).score, width=20
    )  # what libraries take at their first use
    _sasrec(made_up(40, 30), Room())
    before, started = resident(), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts from here
    value = DO[name](split, Room(memory))
    return {
        "step": name, "memory": memory, "figure": value, "peak_gb": (resident("VmHWM") - before) / GB, "seconds": time.perf_counter() - started,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure every step under every bound, each in its own process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=30_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--memory", type=float, nargs="+", default=[0.5, 2.0, 8.0])
    parser.add_argument("--only", nargs="+", choices=DO, default=list(DO))
    parser.add_argument("--out", type=Path, help="a file to which each result is added as a line of JSON")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one:
        print(json.dumps(measure(given.only[0], given.users, given.items, given.memory[0])))
        return 0
    print(
        f"{given.users:,} users, {given.items:,} items; {time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()}"
    )
    same = True
    for name in given.only:
        found = []
        for memory in given.memory:
            sizes = ["--users", str(given.users), "--items", str(given.items), "--memory", str(memory)]
            command = [sys.executable, "-m", "benchmarks.baselines", "--one", *sizes, "--only", name]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found.append(json.loads(out.splitlines()[-1]))
            if given.out is not None:
                with given.out.open("a") as file:
                    file.write(json.dumps(found[-1]) + "\n")
        each = " | ".join(f"{one['peak_gb']:.2f} GB, {one['seconds']:.0f} s" for one in found)
        print(f"| {name} | {each} | {found[0]['figure']:.6f} |", flush=True)
        same = same and len({one["figure"] for one in found}) == 1
    if not same:
        print("figures differ between bounds")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
