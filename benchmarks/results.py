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
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from rectune.eval.page import interval, number, signed, word_of

from rectune.recipe.load import bundled, load_recipe, read_yaml
from rectune.run.judged import HIDDEN, SHOWN, as_json

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "recipes" / "results"
README = ROOT / "recipes" / "README.md"
PUBLISHED = FOLDER / "published.yaml"
BEGIN, END = "<!-- made by benchmarks/results.py: {} -->", "<!-- end -->"
UNTUNED, TUNED, MIXED, PRIOR = "untuned model", "tuned model", "tuned model + prior", "prior alone"
NAMES = {
    "amazon18_scientific": "Amazon 2018 Scientific", "Beauty": "Amazon 2014 Beauty", "Instruments": "Amazon 2018 Instruments",
    "movielens": "MovieLens 100K", "synthetic": "made-up shop", "tallrec": "TALLRec's movie rows",
}  # fmt: skip
# Keys that say where a run was made, or what a report tells beside its tables.
PLACES = re.compile(
    r"output_dir|data\.path|index\.path|model\.model_name_or_path|model\.device|rank\.batch_tokens|grid\b.*|seed|cite|about|eval\.(wording|shuffled)_rows|eval\.examples"
)
Entry = dict[str, Any]


# ------------------------------------------------------------------------------------------------------------- reading


def entry_of(report: dict[str, Any], variant: str, recipe: str) -> Entry:
    """What is kept of a report: every row of its tables and what produced them, no example and no place on a machine."""
    results, settings, around = report["results"], report["settings"], report["environment"]
    changed = {key: value for key, value in _changes(recipe, settings).items() if not PLACES.fullmatch(key)}
    kept = (
        "protocols",
        "table",
        "tuned_against",
        "mixed_against",
        "tuned_against_within_users",
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
    return {key: theirs.get(key) for key in dict.fromkeys([*theirs, *ours]) if theirs.get(key) != ours.get(key)}


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
            kept = [entry for entry in load(name) if _key(entry) != _key(new)]
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


def _key(entry: Entry) -> tuple[str, str, int]:
    return entry["variant"], json.dumps(entry["changed"], sort_keys=True), entry["seed"]


# --------------------------------------------------------------------------------------------------------------- pages


def groups_of(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries of one variant and one cell, over their seeds."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_key(entry)[:2], []).append(entry)
    return list(groups.values())


def page(recipe: str, entries: Sequence[Entry]) -> str:
    """The made part of a recipe's page: for each variant and cell its table, its verdicts and what produced it."""
    parts = []
    for group in groups_of(entries):
        first = group[0]
        cell = ", ".join(
            f"{key} {json.dumps(value)}" for key, value in first["changed"].items() if not first["variant"]
        )
        if first.get("transcribed"):
            continue
        parts += [
            f"## {first['variant'] or cell or 'as the recipe'}",
            "",
            *_table(group),
            "",
            *_verdicts(group),
            "",
            _produced(group),
            "",
        ]
    if any(entry.get("transcribed") for entry in entries):
        parts.append(
            "Measured before reports were kept: the figures of the overview were copied from the notes below, and have intervals where these do."
        )
    return "\n".join(parts).rstrip()


def _table(group: Sequence[Entry]) -> list[str]:
    first = group[0]
    if first["kind"] == "items":
        metrics = _best_metrics(first)
        titles = [protocol for protocol in (HIDDEN, SHOWN) if protocol in first["protocols"]]
        lines = [
            f"| row | {' | '.join(f'{m}, {t}' for t in titles for m in metrics)} |",
            "|---" * (1 + len(titles) * len(metrics)) + "|",
        ]
        for row in first["protocols"][HIDDEN]:
            cells = [_over([_value(e["protocols"][t].get(row, {}), m) for e in group]) for t in titles for m in metrics]
            lines.append(f"| {_strong(row)} | {' | '.join(cells)} |")
        return lines
    metrics = ("auc", "user_auc", "log_loss") if first["kind"] == "likes" else ("rmse", "mae", "auc")
    metrics = tuple(metric for metric in metrics if metric in next(iter(first["table"].values())))
    lines = [f"| row | {' | '.join(metrics)} |", "|---" * (1 + len(metrics)) + "|"]
    for row in first["table"]:
        lines.append(
            f"| {_strong(row)} | {' | '.join(_over([_value(e['table'].get(row, {}), m) for e in group]) for m in metrics)} |"
        )
    return lines


def _best_metrics(entry: Entry) -> list[str]:
    """Recall and NDCG at the largest length of a table."""
    named = next(iter(entry["protocols"][HIDDEN].values()))
    k = max(int(name.partition("@")[2]) for name in named if name.startswith("recall@"))
    return [f"recall@{k}", f"ndcg@{k}"]


def _value(row: dict[str, Any], metric: str) -> Any:
    return row.get(metric)


def _over(values: Sequence[Any]) -> str:
    """One value with its interval, or mean ± deviation over seeds."""
    if len(values) == 1:
        value = values[0]
        return interval(value) if isinstance(value, list) and None not in value else number(_mean_of(value))
    means = [_mean_of(value) for value in values]
    if any(mean is None for mean in means):
        return "–"
    return f"{number(statistics.mean(means))} ± {number(statistics.stdev(means))}"


def _mean_of(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _strong(row: str) -> str:
    return f"**{row}**" if row in (TUNED, MIXED) else row


def _against(entry: Entry, which: str = "tuned_against") -> dict[str, Any] | None:
    found = entry.get(which)
    if found is None:
        return None
    return dict(found.get(HIDDEN, found))


def _verdicts(group: Sequence[Entry]) -> list[str]:
    lines = []
    for which, row in (("tuned_against", TUNED), ("mixed_against", MIXED)):
        for entry in group:
            against = _against(entry, which)
            if against is None:
                continue
            others = [against["best_baseline"], *(name for name in (PRIOR, UNTUNED) if name in against["differences"])]
            said = [
                f"{interval(against['differences'][name], sign=True)} beside {name} (*{word_of(against['differences'][name], lower_is_better=against.get('lower_is_better', False)) or 'not defined'}*)"
                for name in dict.fromkeys(others)
                if name is not None and against["differences"].get(name) is not None
            ]
            if said:
                lines.append(
                    f"- {row}, seed {entry['seed']}, {against['metric']}{', seen items hidden' if 'protocols' in entry else ''}: {'; '.join(said)}."
                )
    return lines


def _produced(group: Sequence[Entry]) -> str:
    first = group[0]
    minutes = "; ".join(
        f"{e['minutes']['training']:g} min of training, {e['minutes']['all']:g} in all" for e in group[:1]
    )
    base = _base_of(first)
    versions = ", ".join(
        f"{name} {first['versions'][name]}"
        for name in ("torch", "transformers", "trl", "peft")
        if name in first["versions"]
    )
    seeds = ", ".join(str(e["seed"]) for e in group)
    rows = f"{first['rows']:,} test rows" + (f" of {first['users']:,} users" if "users" in first else "")
    return (
        f"`{first['command']}`, seed{'s' if len(group) > 1 else ''} {seeds}; {first['data']}, {first['log']['users']:,} users, {first['log']['items']:,} items, "
        f"{rows}, split {first['split']}; {first['device']}, {first['threads']} threads, {minutes}; {first['date']}, rectune {first['rectune']}"
        f"{' (' + first['commit'][:7] + ')' if first.get('commit') else ''}, {versions}{base}."
    )


def _base_of(entry: Entry) -> str:
    base = entry.get("base")
    if base is None:
        return ""
    if base.get("random"):
        return f"; the architecture of {base['name']} with random weights"
    which = base.get("commit") or ", ".join(value[:12] for value in base.get("sha256", {}).values())
    return f"; weights of {base['name']}: {which}"


def overview(kind: str, published: dict[str, Any]) -> str:
    """A line a recipe and variant that was measured."""
    items = kind == "items"
    head = [
        "data",
        "recipe",
        "R@10, N@10" if items else ("AUC" if kind == "likes" else "RMSE"),
        "best row without a language model",
        "difference",
    ]
    head += ["with the prior", "difference to the prior"] if items else []
    head += ["seeds", "minutes", "verdict", "published"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for file in sorted(FOLDER.glob("*.json")):
        recipe = file.stem
        for group in groups_of(load(recipe)):
            if group[0]["kind"] == kind:
                lines.append(f"| {' | '.join(_line(recipe, group, published.get(recipe, {})))} |")
    return "\n".join(lines)


def _line(recipe: str, group: Sequence[Entry], published: dict[str, Any]) -> list[str]:
    first = group[0]
    against = [_against(entry) for entry in group]
    best = [one["best_baseline"] for one in against if one is not None]
    words = {
        word_of(one["differences"][one["best_baseline"]], lower_is_better=one.get("lower_is_better", False))
        for one in against
        if one is not None
    }
    verdict = words.pop() if len(words) == 1 else "not shown to differ"  # None where no interval was kept
    cell = ", ".join(f"{key.rpartition('.')[2]} {json.dumps(value)}" for key, value in first["changed"].items())
    name = f"[{recipe}](results/{recipe}.md)" + (f", {first['variant'] or cell}" if first["variant"] or cell else "")
    device = "GPU" if "NVIDIA" in first["device"] else "CPU"
    figures = [
        first["data"],
        name,
        _both(group, TUNED),
        f"{best[0]}: {_both(group, best[0])}",
        _difference(against[0], best[0]),
    ]
    if first["kind"] == "items":
        mixed = _against(first, "mixed_against")
        figures += [_both(group, MIXED) if mixed else "", _difference(mixed, PRIOR) if mixed else ""]
        if mixed:
            word = word_of(mixed["differences"][PRIOR])
            verdict = "; ".join(filter(None, [verdict, f"with the prior {word}"]))
    told = f"{published['figures']} ({published['source']}; {published['certainty']})" if published else ""
    minutes = [first["minutes"][key] for key in ("all", "training") if key in first["minutes"]]
    took = f"{minutes[0]:g} ({device}{'' if 'all' in first['minutes'] else ', training'})" if minutes else "–"
    said = f"*{verdict}*" if verdict else "–"
    return [*figures, ", ".join(str(e["seed"]) for e in group), took, said, told]


def _both(group: Sequence[Entry], row: str) -> str:
    if group[0]["kind"] == "items":
        return ", ".join(
            number(statistics.mean(_mean_of(e["protocols"][HIDDEN][row][m]) for e in group))
            for m in _best_metrics(group[0])
        )
    metric = "auc" if group[0]["kind"] == "likes" else "rmse"
    return number(statistics.mean(_mean_of(e["table"][row][metric]) for e in group))


def _difference(against: dict[str, Any] | None, other: str) -> str:
    """The difference with its interval, where one was kept."""
    if against is None or against["differences"].get(other) is None:
        return ""
    value = against["differences"][other]
    return signed(value[0]) if None in value else interval(value, sign=True)


def replaced(text: str, name: str, made: str) -> str:
    """A page with what stands between the marks of `name` replaced. Raises ValueError where the page has no such marks."""
    begin = BEGIN.format(name)
    before, mark, rest = text.partition(begin)
    if not mark or END not in rest:
        raise ValueError(f"the page has no part between `{begin}` and `{END}`.")
    return f"{before}{begin}\n\n{made}\n\n{END}{rest.partition(END)[2]}"


def pages() -> dict[Path, str]:
    """Every page as it has to be: file -> text."""
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))["recipes"] if PUBLISHED.exists() else {}
    made = {}
    for file in sorted(FOLDER.glob("*.json")):
        recipe, target = file.stem, file.with_suffix(".md")
        empty = f"# {recipe}\n\n{_about(recipe)} [The recipe](../{recipe}.yaml).\n\n{BEGIN.format('results')}\n{END}\n"
        made[target] = replaced(
            target.read_text(encoding="utf-8") if target.exists() else empty, "results", page(recipe, load(recipe))
        )
    text = README.read_text(encoding="utf-8")
    for kind in ("items", "likes", "ratings"):
        text = replaced(text, kind, overview(kind, published))
    return {**made, README: text}


def _about(recipe: str) -> str:
    for folder in bundled("recipes"):
        file = folder / f"{recipe}.yaml"
        if file.exists():
            found = read_yaml(file.read_text(encoding="utf-8"), file.name)[0] or {}
            return f"{found.get('about', '')}."
    return ""


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
        for file, text in pages().items():
            file.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
