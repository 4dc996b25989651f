"""Figures that a run does not define: which they are, and what they would need."""

from __future__ import annotations

import math
from typing import Any

NEEDS = {
    "auc": "a liked and a disliked test row",
    "user auc": "a user with a liked and a disliked test row",
    "novelty": "a list that holds an item",
}
SAMPLES = "samples of the users in which the figure is defined"


def defined(value: Any) -> bool:
    """Whether a figure, or each of (value, low, high), is a number: neither None nor NaN."""
    if isinstance(value, list | tuple):
        return all(map(defined, value))
    return value is not None and not math.isnan(value)


def need(metric: str, results: dict[str, Any] | None = None) -> str:
    """What a metric ('auc', 'novelty@10') must have to be defined; `results` of a report that draws the line elsewhere."""
    name = metric.partition("@")[0].replace("_", " ")
    if name == "auc" and results is not None and "like_above" in results:
        return f"a test rating above {results['like_above']:g} and one that is not"
    return NEEDS.get(name, "a test row")


def undefined(table: dict[str, dict[str, Any]], results: dict[str, Any], *, where: str = "") -> list[str]:
    """One sentence for each metric that rows of a table lack; the table: row -> metric -> figure or (value, low, high)."""
    told = []
    for metric in next(iter(table.values()), {}):
        name, figures = metric.replace("_", " "), {row: entry[metric] for row, entry in table.items()}
        without = [row for row, figure in figures.items() if not defined(_value(figure))]
        loose = [row for row, figure in figures.items() if row not in without and not defined(figure)]
        if without:
            told.append(f"{name}{_of(without, table)}, which needs {need(metric, results)}{where}")
        if loose:
            told.append(f"the interval of {name}{_of(loose, table)}, which needs {SAMPLES}")
    return [f"Not defined (–): {what}." for what in told]


def _value(figure: Any) -> Any:
    return figure[0] if isinstance(figure, list | tuple) else figure


def _of(rows: list[str], table: dict[str, Any]) -> str:
    return "" if len(rows) == len(table) else f" of {', '.join(rows)}"
