"""The report as a table for the console and as one HTML page that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from rectune.eval.sentences import (
    choice_words,
    compared,
    interval,
    log_lines,
    measured_line,
    mixed_verdict,
    number,
    oracle_line,
    signed,
    training_lines,
    training_took,
    verdict,
    wording_line,
)
from rectune.eval.undefined import undefined

from rectune.run.judged import HIDDEN, SAMPLED


def page(data: dict[str, Any], figures: dict[str, str], *, kind: str) -> str:
    """Render the page; `figures` are SVG texts by title."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        number=number, interval=interval, signed=signed, took=training_took, compared=compared, verdict=verdict
    )
    environment.globals.update(undefined=undefined)
    source = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        data=data,
        figures=figures,
        kind=kind,
        recipe_text=_yaml(data["settings"]),
        mixed=mixed_verdict(data["results"]) if kind == "ranking" and data["results"]["mixed_against"] else [],
        share=oracle_line(data["results"]) if kind == "ranking" else "",
        about_training=training_lines(data),
        about_log=log_lines(data["results"]),
        worded=wording_line(data["results"]["wordings"]) if data["results"].get("wordings") else "",
    )


def _yaml(settings: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=110))


def ranking_text(data: dict[str, Any]) -> str:
    """The tables of both protocols, the verdict, and what it took."""
    results = data["results"]
    parts = [
        f"{data['recipe']}: {results['log']['users']:,} users, {results['log']['items']:,} items, {results['log']['events']:,} events; "
        f"{results['rows']:,} test rows, full ranking, {results['beams']} beams, scores: {results['scores']}"
    ]
    for protocol, table in results["protocols"].items():
        against = results["tuned_against"][protocol]
        parts += [_ranking_table(protocol, table, against), *undefined(table, results)]
    if (sampled := results.get(SAMPLED)) is not None:
        parts.append(_ranking_table(sampled["heading"], sampled["table"], sampled["tuned_against"]))
    parts.append(verdict(results["tuned_against"][HIDDEN]))
    if results["mixed_against"] is not None:
        parts += mixed_verdict(results)
    if share := oracle_line(results):
        parts.append(share)
    if results["shuffled_history"] is not None:
        shuffled = results["shuffled_history"]
        parts.append(
            f"Shuffling the history costs {interval(shuffled['cost'])} {shuffled['metric']} on {shuffled['rows']} rows."
        )
    if results["wordings"] is not None:
        parts.append(wording_line(results["wordings"]))
    proven = results["proven_exact"][HIDDEN]["tuned model"]
    parts.append(f"{proven:.1%} of the tuned model's lists are proven to be its exact top {results['beams']}.")
    return "\n".join([*parts, *_end(data)])


def _end(data: dict[str, Any]) -> list[str]:
    """What a reader must know of the training and of the log, and what it took."""
    return [*training_lines(data), *log_lines(data["results"]), measured_line(data["measured"])]


def _ranking_table(protocol: str, table: dict[str, Any], against: dict[str, Any]) -> str:
    columns = list(next(iter(table.values())))
    rows = []
    for name, entry in table.items():
        cells = [number(v[0] if isinstance(v, list | tuple) else v) for v in entry.values()]
        difference = against["differences"].get(name)
        rows.append([name, *cells, interval(difference, sign=True) if difference else ""])
    return text_table(protocol, ["", *columns, f"tuned minus it, {against['metric']}"], rows)


def answer_text(data: dict[str, Any]) -> str:
    """The table of a Yes/No run, the verdict, and what it took."""
    results = data["results"]
    rows = []
    for name, entry in results["table"].items():
        difference = results["tuned_against"]["differences"].get(name)
        cells = [interval(entry["auc"]), interval(entry["user_auc"])]
        cells += [number(entry[m]) for m in ("log_loss", "calibration_error")]
        rows.append([name, *cells, interval(difference, sign=True) if difference else ""])
    title = f"{data['recipe']}: {results['rows']:,} test rows of {results['users']:,} users, {results['share_liked']:.1%} liked"
    table = text_table(title, ["", "auc", "user auc", "log loss", "calibration", "tuned minus it, auc"], rows)
    parts = [
        table,
        *undefined(results["table"], results),
        verdict(results["tuned_against"]),
        f"Within users: {verdict(results['tuned_against_within_users'])}",
    ]
    if results["wordings"] is not None:
        parts.append(wording_line(results["wordings"]))
    return "\n".join([*parts, *_end(data)])


def choice_text(data: dict[str, Any]) -> str:
    """The table of a run that chooses among candidates, what its models write freely, the verdict, and what it took."""
    results = data["results"]
    least, most = results["candidates"]
    each = f"{least}" if least == most else f"{least} to {most}"
    title = f"{data['recipe']}: {results['rows']:,} test rows of {results['users']:,} users, {each} candidates a row"
    parts = [_ranking_table(title, results["table"], results["tuned_against"])]
    if (free := results["free"]) is not None:
        heading = f"written freely, as S-DPO judges it: exactly one candidate in the text; {free['rows']:,} rows"
        rows = [[name, *map(interval, entry.values())] for name, entry in free["table"].items()]
        parts.append(text_table(heading, ["", *next(iter(free["table"].values()))], rows))
    parts += choice_words(results)
    if results["wordings"] is not None:
        parts.append(wording_line(results["wordings"]))
    return "\n".join([*parts, *_end(data)])


def rating_text(data: dict[str, Any]) -> str:
    """The table of a rating run, the verdict, and what it took."""
    results = data["results"]
    rows = []
    for name, entry in results["table"].items():
        difference = results["tuned_against"]["differences"].get(name)
        cells = [interval(entry["rmse"]), interval(entry["mae"]), number(entry["accuracy"]), number(entry["auc"])]
        rows.append([name, *cells, interval(difference, sign=True) if difference else ""])
    title = f"{data['recipe']}: {results['rows']:,} test rows of {results['users']:,} users, mean rating {results['mean_given']:.2f}"
    liked = f"auc, above {results['like_above']:g}"
    table = text_table(title, ["", "rmse", "mae", "accuracy", liked, "tuned minus it, rmse"], rows)
    lacking = undefined(results["table"], results)
    return "\n".join([table, *lacking, verdict(results["tuned_against"]), *_end(data)])


def text_table(title: str, head: list[str], rows: list[list[str]]) -> str:
    """A plain table: first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        title,
        "  ".join(h.ljust(w) if i == 0 else h.rjust(w) for i, (h, w) in enumerate(zip(head, widths, strict=True))),
    ]
    lines.append("  ".join("-" * w for w in widths))
    lines += [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n" + "\n".join(line.rstrip() for line in lines)
