"""Items that no training has seen: held out of a log, tuned without, added by `rectune index add`, and judged.

    python -m benchmarks.cold_items PATH/TO/amazon18_scientific OUT [--share 0.05] [--recipe NAME] [--section.key VALUE …]

Makes OUT/data (the log without the held-out items), OUT/new.jsonl (their texts) and OUT/rows.jsonl (users whose last event is
one of them, with the history before it), trains OUT/run, adds the items and prints Recall@10 beside chance and the text
nearest-neighbour. Reads LC-Rec's layout.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rectune.data_builders.files import find_file, optional_file

from rectune.cli import main, parse_overrides
from rectune.runtime.text_files import read_json


def hold_out(source: Path, out: Path, *, share: float, seed: int) -> tuple[int, int]:
    """Write the reduced log, the held-out items and their rows; returns how many items and rows were held out."""
    inter = find_file(source, "*.inter.json")
    sequences: dict[str, list[Any]] = read_json(inter)
    texts_file = optional_file(source, "*.item.json", "*.item.derived.json")
    if texts_file is None:
        raise ValueError(f"{source}: new items are named by their texts, and there is no *.item.json.")
    texts: dict[str, dict[str, Any]] = read_json(texts_file)
    items = sorted({str(item) for sequence in sequences.values() for item in sequence})
    cold = set(np.random.default_rng(seed).choice(items, max(1, round(share * len(items))), replace=False).tolist())
    warm = {user: [item for item in sequence if str(item) not in cold] for user, sequence in sequences.items()}
    rows = [
        {"user": user, "items": [str(item) for item in warm[user]], "target": str(sequence[-1])}
        for user, sequence in sequences.items()
        if str(sequence[-1]) in cold and warm[user]
    ]
    left = {str(item) for sequence in warm.values() for item in sequence}
    rows = [row for row in rows if left.issuperset(row["items"])]
    data = out / "data"
    data.mkdir(parents=True, exist_ok=True)
    stem = inter.name.partition(".")[0]
    (data / f"{stem}.inter.json").write_text(
        json.dumps({user: sequence for user, sequence in warm.items() if sequence})
    )
    (data / f"{stem}.item.json").write_text(json.dumps({item: texts[item] for item in sorted(left)}))
    new = [json.dumps({"item_id": item, **texts[item]}) for item in sorted(cold)]
    (out / "new.jsonl").write_text("\n".join(new) + "\n")
    (out / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return len(cold), len(rows)


def run() -> int:
    """Hold out, train, add, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="tiger-scientific-cpu")
    args, rest = parser.parse_known_args()
    items, rows = hold_out(args.source, args.out, share=args.share, seed=args.seed)
    print(f"held out {items} items; {rows} users end with one of them")
    overrides = [word for key, value in parse_overrides(rest) for word in (f"--{key}", value)]
    place = [f"--data.path={args.out / 'data'}", f"--output_dir={args.out / 'run'}", f"--seed={args.seed}"]
    code = main(["train", args.recipe, *place, *overrides])
    return code or main(
        ["index", "add", str(args.out / "run"), str(args.out / "new.jsonl"), "--rows", str(args.out / "rows.jsonl")]
    )


if __name__ == "__main__":
    raise SystemExit(run())
