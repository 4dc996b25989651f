"""Pages of results, made of what `benchmarks/results.py` keeps."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rectune.eval.ranking import MIXED, ORACLE, PRIOR, TUNED, UNTUNED
from rectune.eval.sentences import compared, interval, number, signed, word_of

from benchmarks import results
from benchmarks.results import Entry
from rectune.recipe.load import bundled, read_yaml
from rectune.run.judged import HIDDEN, SHOWN

# Kind of a result -> what the overview shows of it, and the columns of its page (the lists of `items` have their own).
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "items": ("R@10, N@10", ()),
    "choices": ("hit ratio@1", ("hit ratio@1", "hit ratio@5", "mrr")),
    "likes": ("AUC", ("auc", "user_auc", "log_loss")),
    "ratings": ("RMSE", ("rmse", "mae", "auc")),
}

BEGIN, END = "<!-- made by benchmarks/results.py: {} -->", "<!-- end -->"


def groups_of(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries of one variant and one cell, over their seeds."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(results.key(entry)[:2], []).append(entry)
    return list(groups.values())


def page(recipe: str, entries: Sequence[Entry]) -> str:
    """The made part of a recipe's page: for each variant and cell its table, its verdicts and what produced it."""
    parts = []
    for group in groups_of(entries):
        first = group[0]
        if first.get("transcribed"):
            continue
        parts += [
            f"## {_called(first, entries) or 'as the recipe'}",
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


def _called(entry: Entry, entries: Sequence[Entry], *, short: bool = False) -> str:
    """The variant and the cell of an entry, in words; of a named variant the keys that tell its cells apart. `short` leaves out their sections."""
    changed, variant = entry["changed"], entry["variant"]
    if variant:
        others = [other["changed"] for other in entries if other["variant"] == variant]
        changed = {key: value for key, value in changed.items() if any(other.get(key) != value for other in others)}
    cell = [f"{key.rpartition('.')[2] if short else key} {json.dumps(value)}" for key, value in changed.items()]
    return ", ".join(filter(None, [variant, *cell]))


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
            cells = [_over([e["protocols"][t].get(row, {}).get(m) for e in group]) for t in titles for m in metrics]
            lines.append(f"| {_strong(row)} | {' | '.join(cells)} |")
        return lines
    shown = tuple(metric for metric in KINDS[first["kind"]][1] if metric in next(iter(first["table"].values())))
    lines = _rows([entry["table"] for entry in group], shown)
    if first.get("free"):
        said = f"Written freely after {first['free']['rows']:,} test rows (valid: exactly one candidate stands in the text):"
        tables = [entry["free"]["table"] for entry in group]
        lines += ["", said, "", *_rows(tables, tuple(next(iter(tables[0].values()))))]
    return lines


def _rows(tables: Sequence[dict[str, Any]], metrics: Sequence[str]) -> list[str]:
    """A table as it stands in several entries, row -> metric -> figure; the rows are those of the first."""
    lines = [f"| row | {' | '.join(metrics)} |", "|---" * (1 + len(metrics)) + "|"]
    for row in tables[0]:
        lines.append(
            f"| {_strong(row)} | {' | '.join(_over([t.get(row, {}).get(m) for t in tables]) for m in metrics)} |"
        )
    return lines


def _best_metrics(entry: Entry) -> list[str]:
    """Recall and NDCG at the largest length of a table."""
    named = next(iter(entry["protocols"][HIDDEN].values()))
    k = max(int(name.partition("@")[2]) for name in named if name.startswith("recall@"))
    return [f"recall@{k}", f"ndcg@{k}"]


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
    minutes = f"{first['minutes']['training']:g} min of training, {first['minutes']['all']:g} in all"
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
    """A line a recipe and variant that was measured, by data."""
    items = kind == "items"
    head = [
        "data",
        "recipe",
        KINDS[kind][0],
        "best row without a language model",
        "difference",
    ]
    head += ["with the prior", "difference to the prior"] if items else []
    head += ["seeds", "minutes", "verdict", "published"]
    lines = [
        _line(file.stem, group, _called(group[0], entries, short=True), published.get(file.stem, {}))
        for file in sorted(results.FOLDER.glob("*.json"))
        for entries in [results.load(file.stem)]
        for group in groups_of(entries)
        if group[0]["kind"] == kind
    ]
    rows = [head, ["---"] * len(head), *sorted(lines, key=lambda cells: cells[0])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _line(recipe: str, group: Sequence[Entry], called: str, published: dict[str, Any]) -> list[str]:
    first = group[0]
    against = [one for one in map(_against, group) if one is not None]
    best = _best_of_all(against, group)
    verdict = _word(against, best)
    name = f"[{recipe}](results/{recipe}.md)" + (f", {called}" if called else "")
    device = "GPU" if "NVIDIA" in first["device"] else "CPU"
    figures = [
        first["data"],
        name,
        _both(group, TUNED),
        f"{best}: {_both(group, best)}",
        _difference(against[0], best),
    ]
    if first["kind"] == "items":
        mixed = [one for one in (_against(entry, "mixed_against") for entry in group) if one is not None]
        figures += [_both(group, MIXED) if mixed else "", _difference(mixed[0], PRIOR) if mixed else ""]
        if mixed:
            verdict = "; ".join(filter(None, [verdict, f"with the prior {_word(mixed, PRIOR)}"]))
    told = f"{published['figures']} ({published['source']}; {published['certainty']})" if published else ""
    if published.get("protocol") in first.get("protocols", {}):
        told += f"; ours by that protocol {_both(group, TUNED, published['protocol'])}"
    minutes = [first["minutes"][key] for key in ("all", "training") if key in first["minutes"]]
    took = f"{minutes[0]:g} ({device}{'' if 'all' in first['minutes'] else ', training'})" if minutes else "–"
    said = f"*{verdict}*" if verdict else "–"
    return [*figures, ", ".join(str(e["seed"]) for e in group), took, said, told]


def _best_of_all(against: Sequence[dict[str, Any]], group: Sequence[Entry]) -> str:
    """The row without a language model that is best on the mean of all seeds; a single seed's best may be another one."""
    named = [name for name in against[0]["differences"] if name not in (UNTUNED, MIXED, ORACLE)]
    metric, sign = against[0]["metric"], -1.0 if against[0].get("lower_is_better", False) else 1.0
    tables = [entry["protocols"][HIDDEN] if "protocols" in entry else entry["table"] for entry in group]
    return max(named, key=lambda name: sign * statistics.mean(_mean_of(table[name][metric]) for table in tables))


def _word(against: Sequence[dict[str, Any]], other: str) -> str | None:
    """What the intervals of all seeds say together of the difference to a row; None where no interval was kept."""
    words = {None if one["differences"].get(other) is None else compared(one, other) for one in against}
    return words.pop() if len(words) == 1 else "not shown to differ"


def _both(group: Sequence[Entry], row: str, protocol: str = HIDDEN) -> str:
    if group[0]["kind"] == "items":
        return ", ".join(
            number(statistics.mean(_mean_of(e["protocols"][protocol][row][m]) for e in group))
            for m in _best_metrics(group[0])
        )
    metric = KINDS[group[0]["kind"]][1][0]
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
    published = (
        yaml.safe_load(results.PUBLISHED.read_text(encoding="utf-8"))["recipes"] if results.PUBLISHED.exists() else {}
    )
    made = {}
    for file in sorted(results.FOLDER.glob("*.json")):
        recipe, target = file.stem, file.with_suffix(".md")
        empty = f"# {recipe}\n\n{_about(recipe)} [The recipe](../{recipe}.yaml).\n\n{BEGIN.format('results')}\n{END}\n"
        made[target] = replaced(
            target.read_text(encoding="utf-8") if target.exists() else empty,
            "results",
            page(recipe, results.load(recipe)),
        )
    text = results.README.read_text(encoding="utf-8")
    for kind in KINDS:
        text = replaced(text, kind, overview(kind, published))
    return {**made, results.README: text}


def _about(recipe: str) -> str:
    for folder in bundled("recipes"):
        file = folder / f"{recipe}.yaml"
        if file.exists():
            found = read_yaml(file.read_text(encoding="utf-8"), file.name)[0] or {}
            return f"{found.get('about', '')}."
    return ""
