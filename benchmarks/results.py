"""Measured results as data, and the pages made of them.

    python -m benchmarks.results add RUN… [--variant TEXT] [--recipe NAME]   # report.json of runs -> recipes/results/RECIPE.json
    python -m benchmarks.results pages                                        # -> recipes/results/RECIPE.md, the tables of recipes/README.md

RUN is a run folder, a folder of a grid or a report.json. A variant says what a run changed, such as "random weights, LoRA"; a run replaces
what was there of the same variant, cell and seed. Of each page only what stands between the marks is made; notes around them are kept.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rectune.recipe.load import load_recipe
from rectune.run.judged import as_json

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "recipes" / "results"
README = ROOT / "recipes" / "README.md"
PUBLISHED = FOLDER / "published.yaml"
NAMES = {
    "amazon18_scientific": "Amazon 2018 Scientific", "Beauty": "Amazon 2014 Beauty", "Instruments": "Amazon 2018 Instruments",
    "movielens": "MovieLens 100K", "synthetic": "made-up shop", "tallrec": "TALLRec's movie rows", "sdpo": "S-DPO's LastFM rows",
}  # fmt: skip
# Keys that say where a run was made, or what a report tells beside its tables.
PLACES = re.compile(
    r"output_dir|data\.path|index\.path|model\.model_name_or_path|model\.device|rank\.batch_tokens|grid\b.*|seed|cite|about|eval\.(wording|shuffled)_rows|eval\.examples"
)
DEEPEST = 10  # items of the lists by which all ranked results are told
Entry = dict[str, Any]


def entry_of(report: dict[str, Any], variant: str, recipe: str) -> Entry:
    """What is kept of a report: every row of its tables and what produced them, no example and no place on a machine."""
    results, settings, around = report["results"], report["settings"], report["environment"]
    protocol = next(iter(results["tuned_against"])) if "protocols" in results else None
    metric = "" if protocol is None else results["tuned_against"][protocol]["metric"]
    if int(metric.partition("@")[2] or 0) > DEEPEST:
        raise ValueError(
            f"{report['recipe']}: its tuned model is judged by {metric}, and the tables hold lists of {DEEPEST}. Report it once more: `rectune eval RUN --eval.k '[1, 5, 10]'`."
        )
    changed = {key: value for key, value in _changes(recipe, settings).items() if not PLACES.fullmatch(key)}
    kept = (
        "protocols",
        "table",
        "tuned_against",
        "mixed_against",
        "tuned_against_within_users",
        "by_chance",
        "free",
        "oracle_share",
        "shuffled_history",
        "rows",
        "users",
    )
    weight = results.get("prior_weight")
    base = around.get("base")
    return {
        "variant": variant, "seed": settings["seed"], "changed": changed, "command": _command(recipe, settings["seed"], changed),
        "data": _data(settings), "log": {key: results["log"][key] for key in ("users", "items", "events")},
        "split": settings["split"]["call"], "kind": _kind(results), **{key: results[key] for key in kept if results.get(key) is not None},
        **({} if weight is None else {"prior_weight": weight["weight"]}),
        "minutes": _minutes(report["measured"]), "date": around["date"], "device": around["device"], "threads": around["threads"],
        "commit": around["commit"], "rectune": around["rectune"], "versions": around["versions"],
        **({} if base is None else {"base": base}),
    }  # fmt: skip


def _changes(recipe: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted key -> value of what a run asked otherwise than the recipe as it is bundled."""
    theirs, ours = _flat(settings), _flat(load_recipe(recipe).settings)

    def named(key: str) -> str:  # a section that a run leaves out is left out as a whole
        parts = key.split(".")
        above = [".".join(parts[:end]) for end in range(1, len(parts))]
        return next((section for section in above if section in theirs and theirs[section] is None), key)

    return {named(key): theirs.get(key) for key in dict.fromkeys([*theirs, *ours]) if theirs.get(key) != ours.get(key)}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        pairs = enumerate(value)
    else:
        return {prefix: value}
    return {
        key: one
        for name, part in pairs
        for key, one in _flat(part, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def _command(recipe: str, seed: int, changed: dict[str, Any]) -> str:
    said = [
        f"--{key} {shlex.quote(value if isinstance(value, str) else json.dumps(value))}"
        for key, value in changed.items()
    ]
    return " ".join(["rectune train", recipe, *said, *([f"--seed {seed}"] if seed else [])])


def _data(settings: dict[str, Any]) -> str:
    called = settings["data"]["call"]
    if settings["split"]["call"] == "tallrec_movie":
        return NAMES["tallrec"]
    place = Path(str(settings["data"].get("path") or called)).name
    return NAMES.get(place, NAMES.get(called, place))


def _kind(results: dict[str, Any]) -> str:
    if "protocols" in results:
        return "items"
    if "by_chance" in results:
        return "choices"
    return "ratings" if "rating_values" in results else "likes"


def _minutes(measured: dict[str, Any]) -> dict[str, float]:
    """Minutes of training, and of everything that was measured."""
    seconds = {
        name: entry["seconds"] for name, entry in measured.items() if isinstance(entry, dict) and "seconds" in entry
    }
    training = sum(value for name, value in seconds.items() if name.startswith("training"))
    return {"training": round(training / 60, 1), "all": round(sum(seconds.values()) / 60, 1)}


def reports_of(place: Path) -> list[Path]:
    """The report of a run folder or a file, or those of a grid's cells."""
    if place.is_file():
        return [place]
    if (place / "report.json").exists():
        return [place / "report.json"]
    return sorted(place.rglob("report.json"))


def load(recipe: str) -> list[Entry]:
    """The kept entries of a recipe, none where nothing was measured."""
    file = FOLDER / f"{recipe}.json"
    found: list[Entry] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return found


def add(places: Sequence[Path], variant: str, recipe: str | None) -> list[str]:
    """Keep the reports of runs. Returns the recipes that changed."""
    changed = []
    for place in places:
        files = reports_of(place)
        if not files:
            raise FileNotFoundError(f"{place}: there is no report.json.")
        for file in files:
            report = json.loads(file.read_text(encoding="utf-8"))
            name = recipe or report["recipe"]
            new = json.loads(as_json(entry_of(report, variant, name)))
            kept = [entry for entry in load(name) if key(entry) != key(new)]
            entries = sorted(
                [*kept, new], key=lambda entry: (entry["variant"], _natural(entry["changed"]), entry["seed"])
            )
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / f"{name}.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
            changed.append(name)
    return sorted(set(changed))


def _natural(changed: dict[str, Any]) -> str:
    """Settings as a text that sorts numbers by their value."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(12), json.dumps(changed))


def key(entry: Entry) -> tuple[str, str, int]:
    """What tells an entry from others of its recipe: variant, cell, seed."""
    return entry["variant"], json.dumps(entry["changed"], sort_keys=True), entry["seed"]


def main() -> int:
    """Add results, or make the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    adding = verbs.add_parser("add", help="keep the reports of runs")
    adding.add_argument("runs", nargs="+", type=Path)
    adding.add_argument("--variant", default="", help="what these runs changed, in words")
    adding.add_argument("--recipe", default=None, help="the recipe's name, where the report does not hold it")
    verbs.add_parser("pages", help="make the pages")
    args = parser.parse_args()
    try:
        if args.verb == "add":
            print("kept: " + ", ".join(add(args.runs, args.variant, args.recipe)))
        from benchmarks.results_page import pages

        for file, text in pages().items():
            file.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
