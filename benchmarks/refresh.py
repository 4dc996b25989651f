"""What going on from an earlier run is worth beside training anew: by NDCG, minutes, and what was forgotten.

    python -m benchmarks.refresh PATH/TO/amazon18_scientific OUT [--recipe tiger-scientific-cpu] [--epochs 10] [--more 1 3] [--seed 0]

The earlier log is the set without the last event of each user and without items that only these touched. OUT/earlier is tuned on it for
`--epochs`; OUT/refreshed-N goes on from there for N epochs on the whole set, at a third of the learning rate; OUT/anew is tuned on the
whole set for `--epochs`. All are judged on the same test rows. What was stopped continues.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rectune.data_builders.files import find_file, optional_file

from rectune.bundle.refresh import refreshed
from rectune.methods.measured import FILE as MEASURED
from rectune.recipe.load import load_recipe
from rectune.run.judged import HIDDEN
from rectune.run.run import open_run
from rectune.run.train import train
from rectune.runtime.text_files import read_json


def earlier_log(source: Path, to: Path) -> Path:
    """The set without the last event of each user."""
    to.mkdir(parents=True, exist_ok=True)
    sequences = read_json(find_file(source, "*.inter.json"))
    short = {user: items[:-1] for user, items in sequences.items()}
    (to / "early.inter.json").write_text(json.dumps(short))
    texts = optional_file(source, "*.item.json")
    if texts is not None:
        (to / "early.item.json").write_text(json.dumps(read_json(texts)))
    return to


def finished(folder: Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The report of a run, what its first training measured, and its largest k."""
    run = open_run(folder)
    measured = json.loads((run.tuned.folder / MEASURED).read_text())
    return json.loads((folder / "report.json").read_text()), measured, max(run.asked.judged_by["k"])


def cell(entry: dict[str, Any], last: int) -> str:
    """Recall and NDCG of a row of the report, `.0911, .0642`."""
    return ", ".join(f"{entry[f'{m}@{last}'][0]:.4f}".lstrip("0") for m in ("recall", "ndcg"))


def line_of(name: str, folder: Path) -> str:
    """One line of the table."""
    report, measured, last = finished(folder)
    table, earlier, seconds = (
        report["results"]["protocols"][HIDDEN],
        report["results"].get("earlier"),
        measured["seconds"],
    )
    forgotten = "–"
    if earlier and earlier["rows"]:
        value, low, high = earlier[f"ndcg@{last}"]["difference"]
        forgotten = f"{value:+.4f} [{low:+.4f}, {high:+.4f}] on {earlier['rows']:,}"
    before = cell(table["untuned model"], last) if earlier else "–"
    return f"| {name} | {seconds / 60:.1f} | {before} | {cell(table['tuned model'], last)} | {forgotten} |"


def run() -> int:
    """Train what is not there and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="tiger-scientific-cpu")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--more", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    early = earlier_log(args.source, args.out / "early-log")
    plain = load_recipe(args.recipe)
    rate = plain.settings["stages"][0]["learning_rate"]

    def recipe(name: str, data: Path, epochs: int, rate: float) -> Any:
        own = {
            "data.path": data, "seed": args.seed, "output_dir": args.out / name, "stages.0.num_train_epochs": epochs,
            "stages.0.learning_rate": rate, "rank.prior": "null", "sasrec": "null", "eval.shuffled_rows": 0,
        }  # fmt: skip
        return load_recipe(args.recipe, [(key, str(value)) for key, value in own.items()])

    train(recipe("earlier", early, args.epochs, rate))
    for more in args.more:
        train(refreshed(recipe(f"refreshed-{more}", args.source, more, rate / 3), args.out / "earlier"))
    train(recipe("anew", args.source, args.epochs, rate))
    print(
        "| | training, min | before, R@10, N@10 | after | NDCG@10 on rows of the earlier run |\n|---|---|---|---|---|"
    )
    for more in args.more:
        print(line_of(f"gone on from, {more} epoch{'s' if int(more) != 1 else ''}", args.out / f"refreshed-{more}"))
    print(line_of(f"anew, {args.epochs} epochs", args.out / "anew"))
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
