"""Reading a CSV log: rectune's table builder beside Polars' own reader, each in a process of its own.

    python benchmarks/reading.py --rows 3000000        # CPU seconds and peak memory of both, and of the whole builder

The file is made up: string ids, a time, a column that nobody asks for. What is compared is the reading step, rows of strings; the builder
goes on to check, sort and encode them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
WAYS = ("polars", "reading", "builder")


def write(file: Path, rows: int) -> None:
    """A log of `rows` events, a twentieth as many users."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, rows // 20, rows), rng.zipf(1.3, rows) % 50_000
    with file.open("w") as out:
        out.write("user,item,time,comment\n")
        for start in range(0, rows, 100_000):
            chunk = zip(users[start : start + 100_000], items[start : start + 100_000], strict=True)
            out.writelines(
                f"u{u:07d},i{i:06d},{1_500_000_000 + start + n},a few words\n" for n, (u, i) in enumerate(chunk)
            )


def measure(way: str, file: Path) -> dict[str, float]:
    """CPU seconds and peak memory above that of the libraries, in this process."""
    import polars as pl
    from rectune.data_builders.files import read_rows
    from rectune.data_builders.table import table

    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if way == "polars":
        rows = pl.read_csv(file, columns=["user", "item", "time"], infer_schema=False).height
    elif way == "reading":
        rows = read_rows(file, separator=",", wanted=lambda names: ["user", "item", "time"]).height
    else:
        rows = table(path=file, time="time").n_events
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"rows": rows, "cpu_s": time.process_time() - started, "peak_mb": (peak - before) / 1024}


def main() -> int:
    """Print a line a way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.file)))
        return 0
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "log.csv"
        write(file, args.rows)
        for way in WAYS:
            command = [sys.executable, "-W", "ignore", __file__, "--way", way, "--file", str(file)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{way:<8} {found['rows']:>10,} rows {found['cpu_s']:8.2f} CPU s {found['peak_mb']:8.0f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
