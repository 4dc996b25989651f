"""Several runs of one recipe, over seeds and other keys, in one report."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from rectune.eval.figures import new_figure, svg
from rectune.eval.page import text_table
from rectune.eval.sentences import interval, number, signed
from rectune.eval.undefined import defined, undefined

from rectune.run.judged import Report

WRITTEN = "written freely"  # a table that is shown, and by which no model is judged


def summarise(
    reports: Sequence[dict[str, Any]], cells: Sequence[dict[str, Any]], links: Sequence[str] | None = None
) -> Report:
    """Mean and standard deviation (n - 1) over seeds of every metric of every row, for each setting of the other keys.

    `cells`: what each report was run with, dotted key -> value, `seed` among them; `links`: folder of each. With several
    settings the summary opens with a table of them and a learning curve.
    """
    settings = [{key: value for key, value in cell.items() if key != "seed"} for cell in cells]
    groups = []
    for setting in [s for i, s in enumerate(settings) if s not in settings[:i]]:
        which = [i for i, other in enumerate(settings) if other == setting]
        groups.append(_group(setting, [reports[i] for i in which], [cells[i]["seed"] for i in which]))
    data = {"recipe": reports[0]["recipe"], "grid": groups}
    overview = _overview(data) if len(groups) > 1 else ""
    text = "\n".join(
        filter(None, [overview, *(_text(data["recipe"], group, reports[0]["results"]) for group in groups)])
    )
    curve = f"<figure>{learning_curve(groups)}</figure>" if len(groups) > 1 else ""
    where = links or [f"seed-{cell['seed']}" for cell in cells]
    listed = "".join(f"<li><a href='{html.escape(link)}/report.html'>{html.escape(link)}</a></li>" for link in where)
    title = html.escape(f"{data['recipe']}: {len(reports)} runs")
    page = f"<!doctype html><meta charset='utf-8'><title>{title}</title><h1>{title}</h1>{curve}<pre>{html.escape(text)}</pre><ul>{listed}</ul>"
    return Report(data, page, text)


def _group(setting: dict[str, Any], reports: Sequence[dict[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    tables = [_tables(report) for report in reports]
    summary = {
        title: {
            row: {metric: _spread([t[title][row][metric] for t in tables]) for metric in entry}
            for row, entry in rows.items()
            if all(row in t[title] for t in tables)
        }
        for title, rows in tables[0].items()
    }
    alone = dict.fromkeys(
        row for title in summary for table in tables for row in table[title] if row not in summary[title]
    )
    each = {title: [_judged(report, title) for report in reports] for title in summary if title != WRITTEN}
    return {"setting": setting, "seeds": list(seeds), "results": summary, "alone": list(alone), "each": each}


def _judged(report: dict[str, Any], title: str) -> dict[str, Any]:
    """What a report says of its tuned model by the metric that it is judged by."""
    against = report["results"]["tuned_against"]
    against = against.get(title, against)
    best, metric = against["best_baseline"], against["metric"]
    table, nothing = _tables(report)[title], [float("nan")] * 3
    return {
        "metric": metric, "tuned": table["tuned model"][metric], "best_baseline": best,
        "baseline": nothing if best is None else table[best][metric],
        "difference": nothing if best is None else list(against["differences"][best]),
    }  # fmt: skip


def over_wordings(wordings: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Mean, lowest and highest figure over the wordings of the template."""
    if not wordings:
        return None
    out: dict[str, Any] = {"each": wordings}
    for metric in [name for name in wordings[0] if name != "wording"]:
        values = [entry[metric] for entry in wordings]
        out[metric] = {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}
    return out


def _tables(report: dict[str, Any]) -> dict[str, Any]:
    results = report["results"]
    if "protocols" in results:
        return dict(results["protocols"])
    if "candidates" in results:
        written = {} if results["free"] is None else {WRITTEN: results["free"]["table"]}
        return {"among candidates": results["table"], **written}
    return {"ratings" if "rating_values" in results else "yes or no": results["table"]}


def _spread(values: Sequence[Any]) -> list[float]:
    plain = np.array([v[0] if isinstance(v, list | tuple) else v for v in values], dtype=np.float64)
    return [float(plain.mean()), float(plain.std(ddof=1)) if len(plain) > 1 else float("nan")]


def _text(recipe: str, group: dict[str, Any], results: dict[str, Any]) -> str:
    where = "".join(f", {key} {'all' if value is None else value}" for key, value in group["setting"].items())
    parts = [f"{recipe}{where}: mean ± standard deviation over seeds {', '.join(map(str, group['seeds']))}"]
    for title, rows in group["results"].items():
        head = ["", *next(iter(rows.values()))]
        cells = [
            [row, *(f"{number(mean)} ± {number(spread)}" for mean, spread in entry.values())]
            for row, entry in rows.items()
        ]
        parts.append(text_table(title, head, cells))
        means = {row: {metric: mean for metric, (mean, _) in entry.items()} for row, entry in rows.items()}
        parts += undefined(means, results, where=" in every run")
        if title not in group["each"]:
            continue
        best = "; ".join(
            f"seed {seed}: {interval(one['difference'], sign=True) if defined(one['difference']) else 'not defined'}"
            for seed, one in zip(group["seeds"], group["each"][title], strict=True)
        )
        parts.append(f"Tuned minus the best baseline: {best}")
    if group["alone"]:
        parts.append(
            f"Rows of some runs only, such as a SASRec whose settings were chosen for each: {', '.join(group['alone'])}. See the runs' own reports."
        )
    if len(group["seeds"]) == 1:
        parts.append("Not defined (–): the standard deviation, which needs two seeds.")
    return "\n".join(parts)


def _overview(data: dict[str, Any]) -> str:
    """One line a setting: the tuned model over seeds, its interval in each of them, and the best baseline beside it."""
    title = next(iter(data["grid"][0]["results"]))
    metric = data["grid"][0]["each"][title][0]["metric"]
    keys = list(data["grid"][0]["setting"])
    seeds = data["grid"][0]["seeds"]
    head = [
        *keys,
        f"tuned, {metric}",
        *(f"seed {seed} [95 % interval]" for seed in seeds),
        "best baseline",
        "tuned minus it",
    ]
    rows = []
    for group in data["grid"]:
        each = group["each"][title]
        tuned = _spread([one["tuned"] for one in each])
        best = _spread([one["baseline"] for one in each])
        difference = _spread([one["difference"] for one in each])
        names = " / ".join(dict.fromkeys(one["best_baseline"] or "none" for one in each))
        rows.append([
            *("all" if value is None else str(value) for value in group["setting"].values()),
            f"{number(tuned[0])} ± {number(tuned[1])}", *(interval(one["tuned"]) for one in each),
            f"{number(best[0])} ({names})", signed(difference[0]),
        ])  # fmt: skip
    return text_table(f"{data['recipe']}: {title}", head, rows)


def learning_curve(groups: Sequence[dict[str, Any]]) -> str:
    """The tuned model of each seed and the best baseline over the settings, as SVG."""
    title = next(iter(groups[0]["results"]))
    metric = groups[0]["each"][title][0]["metric"]
    names = [
        " ".join("all" if value is None else str(value) for value in group["setting"].values()) for group in groups
    ]
    figure, axes = new_figure()
    place = np.arange(len(groups))
    for n, seed in enumerate(groups[0]["seeds"]):
        found = np.array([group["each"][title][n]["tuned"] for group in groups], dtype=np.float64)
        spread = np.abs(found[:, 1:] - found[:, :1]).T
        axes.errorbar(
            place + 0.06 * n, found[:, 0], yerr=spread, marker="o", markersize=3, capsize=2, label=f"tuned, seed {seed}"
        )
    best = [_spread([one["baseline"] for one in group["each"][title]])[0] for group in groups]
    axes.plot(place, best, color="#8aa4c8", linestyle="--", label="best baseline")
    axes.set_xticks(place, names)
    axes.set(xlabel=", ".join(groups[0]["setting"]), ylabel=metric)
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)
