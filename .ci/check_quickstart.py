"""The quickstart's report shows README's rows: baselines to the last place or two, models within what another CPU or thread count changes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr@10")
TOLERANCE = {
    "tuned model": 0.03,
    "untuned model": 0.02,
}  # rounding of float32 sums moves a training from scratch by so much
REST = 0.0011  # of what is computed in float64 from integers: ties may fall otherwise


def wrong() -> list[str]:
    """What differs between README's first table and the report."""
    told = (ROOT / "README.md").read_text().partition("seen items hidden")[2].partition("```")[0]
    report = json.loads((ROOT / "runs" / "quickstart" / "report.json").read_text())["results"]
    rows = report["protocols"]["seen items hidden"]
    out = [
        f"README has no row `{name}`" for name in rows if not re.search(rf"^{re.escape(name)}\s", told, re.MULTILINE)
    ]
    for name, row in rows.items():
        line = re.search(rf"^{re.escape(name)}\s+(.*)$", told, re.MULTILINE)
        for column, text in zip(COLUMNS, line[1].split() if line else [], strict=False):
            if abs(_value(row[column]) - float(text)) > TOLERANCE.get(name, REST):
                out.append(f"{name}, {column}: README says {text}, the run gave {_value(row[column]):.4f}")
    best = max(_value(row["ndcg@10"]) for name, row in rows.items() if name not in ("oracle", "tuned model"))
    if _value(rows["tuned model"]["ndcg@10"]) < best + 0.15:
        out.append("the tuned model is not far better than the best baseline, as README says")
    return out


def _value(figure: object) -> float:
    """A figure, which may stand with the ends of its interval."""
    return float(figure[0] if isinstance(figure, list) else figure)  # type: ignore[arg-type]


if __name__ == "__main__":
    found = wrong()
    print("\n".join(found) or "the quickstart's table is README's")
    sys.exit(bool(found))
