"""Several seeds of one recipe in one report."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from rectune.eval.page import number, signed, text_table

from rectune.evidence import Report


def summarise(reports: Sequence[dict[str, Any]], seeds: Sequence[int]) -> Report:
    """Mean and standard deviation (n - 1) over seeds of every metric of every row, and of tuned minus best baseline."""
    tables = [_tables(report) for report in reports]
    summary = {
        title: {
            row: {metric: _spread([t[title][row][metric] for t in tables]) for metric in entry}
            for row, entry in rows.items()
        }
        for title, rows in tables[0].items()
    }
    differences = {title: [_difference(report, title) for report in reports] for title in summary}
    data = {"recipe": reports[0]["recipe"], "seeds": list(seeds), "results": summary, "differences": differences}
    text = _text(data)
    page = f"<!doctype html><meta charset='utf-8'><title>{html.escape(data['recipe'])}: {len(seeds)} seeds</title><pre>{html.escape(text)}</pre>"
    links = "".join(f"<p><a href='seed-{seed}/report.html'>seed {seed}</a></p>" for seed in seeds)
    return Report(data, page + links, text)


def _tables(report: dict[str, Any]) -> dict[str, Any]:
    results = report["results"]
    if "protocols" in results:
        return dict(results["protocols"])
    return {"ratings" if "rating_values" in results else "yes or no": results["table"]}


def _difference(report: dict[str, Any], title: str) -> list[float]:
    against = report["results"]["tuned_against"]
    against = against.get(title, against)
    return list(against["differences"][against["best_baseline"]])


def _spread(values: Sequence[Any]) -> list[float]:
    plain = np.array([v[0] if isinstance(v, list | tuple) else v for v in values], dtype=np.float64)
    return [float(plain.mean()), float(plain.std(ddof=1)) if len(plain) > 1 else float("nan")]


def _text(data: dict[str, Any]) -> str:
    parts = [f"{data['recipe']}: mean ± standard deviation over seeds {', '.join(map(str, data['seeds']))}"]
    for title, rows in data["results"].items():
        head = ["", *next(iter(rows.values()))]
        cells = [
            [row, *(f"{number(mean)} ± {number(spread)}" for mean, spread in entry.values())]
            for row, entry in rows.items()
        ]
        parts.append(text_table(title, head, cells))
        best = "; ".join(
            f"seed {seed}: {signed(d[0])} [{signed(d[1])}, {signed(d[2])}]"
            for seed, d in zip(data["seeds"], data["differences"][title], strict=True)
        )
        parts.append(f"Tuned minus the best baseline: {best}")
    return "\n".join(parts)
