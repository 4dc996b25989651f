"""`rectune rank` on many users and items: by one, two and three processes, killed on the way; the same bytes, users a second, peak memory.

    python -m benchmarks.everybody FOLDER [--users 50000] [--items 100000] [--processes 1 2 3] [--kills 2]

A small model (GPT-2, 192 units, 2 layers, names of decimal digits) is made in FOLDER once, by two training steps on a made-up log; what it lists is
of no interest. Each process has one thread. Every job but the first is killed (SIGKILL to the whole group) so many times, and started again with the
same command.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
import transformers

RECIPE = """
data: {call: table, path: log.parquet, time: time, items_path: items.parquet}
split: {call: leave_one_out, max_history: 20}
index: {call: random_numbers}
tasks: [{call: next_item, template: next-item-names.jinja}]
model:
  from_scratch: {model_type: gpt2, n_embd: 192, n_layer: 2, n_head: 4, n_positions: 128}
  text_vocab_size: 300
stages: [{call: sft, max_steps: 2, per_device_train_batch_size: 16, max_length: 128}]
rank: {template: next-item-names.jinja, wording: 0, beams: 20, k: 10, scores: catalogue}
eval: {call: ranking, k: [10], shuffled_rows: 0}
seed: 0
output_dir: run
"""


def make(folder: Path, users: int, items: int) -> None:
    """The run and the file of users, where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    ids = [f"item {n}" for n in range(items)]
    if not (folder / "run" / "report.json").exists():
        taken = rng.integers(0, items, (300, 8))
        events = {
            "user": np.repeat(np.arange(300), 8),
            "item": [ids[i] for i in taken.ravel()],
            "time": np.tile(np.arange(8), 300),
        }
        pl.DataFrame(events).write_parquet(folder / "log.parquet")
        pl.DataFrame({"item": ids, "title": [f"Thing {n}" for n in range(items)]}).write_parquet(
            folder / "items.parquet"
        )
        (folder / "many.yaml").write_text(RECIPE)
        subprocess.run([sys.executable, "-m", "rectune", "train", "many.yaml"], check=True, cwd=folder)
    file = folder / f"users-{users}.parquet"
    if not file.exists():
        lengths = rng.integers(1, 21, users)
        drawn = [[ids[i] for i in rng.integers(0, items, n)] for n in lengths]
        pl.DataFrame({"user": [f"user {n}" for n in range(users)], "items": drawn}).write_parquet(file)


def job(folder: Path, users: int, processes: int, to: Path, kills: int) -> tuple[float, float]:
    """Run `rectune rank` to its end; seconds of the last attempt's clock, and its share of the users."""
    launch = (
        [] if processes == 1 else ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--standalone"]
    )
    command = [
        sys.executable,
        *launch,
        "-m",
        "rectune",
        "rank",
        "run",
        "--users",
        f"users-{users}.parquet",
        "--to",
        str(to),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = 0
    for kill in range(kills + 1):
        done = len(list(to.glob("part-*.parquet")))
        started = time.perf_counter()
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if kill < kills:
            while child.poll() is None and len(list(to.glob("part-*.parquet"))) < done + 2:
                time.sleep(0.2)
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        elif child.wait():
            raise SystemExit(f"the job ended with {child.returncode}: {' '.join(command)}")
    every = len(list(to.glob("part-*.parquet")))
    return time.perf_counter() - started, (every - done) / every


def digest(folder: Path) -> str:
    """One hash of all that was written."""
    every = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        every.update(file.name.encode() + file.read_bytes())
    return every.hexdigest()[:12]


def main() -> int:
    """Make what is needed, run the jobs, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--kills", type=int, default=2)
    args = parser.parse_args()
    make(args.folder, args.users, args.items)
    print("| processes | kills | users/s, start included | content |\n|---|---|---|---|")
    found = set()
    for number, processes in enumerate(args.processes):
        to = (args.folder / f"lists-{processes}").resolve()
        subprocess.run(["rm", "-rf", str(to)], check=True)
        kills = args.kills if number else 0
        seconds, share = job(args.folder, args.users, processes, to, kills)
        found.add(digest(to))
        print(f"| {processes} | {kills} | {args.users * share / seconds:,.0f} | {digest(to)} |", flush=True)
    print(
        f"{'the same content' if len(found) == 1 else 'CONTENTS DIFFER'}; {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )
    return int(len(found) > 1)


if __name__ == "__main__":
    raise SystemExit(main())
