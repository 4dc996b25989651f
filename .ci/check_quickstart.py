"""README's first screen: its Python lists items after the quickstart, and the quickstart's report shows its rows: baselines to the last place or two, models within what another CPU or thread count changes."""

from __future__ import annotations

import json
import re
import subprocess
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


def wrong_in_python() -> list[str]:
    """What is wrong with the Python of README's first screen, run as it stands there after the quickstart."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    listed = re.findall(r"^ +-\d+\.\d{3} +i\d+  \w", out.stdout, re.MULTILINE)
    return [] if out.returncode == 0 and len(listed) == 10 else [f"README's Python: {out.stdout}{out.stderr[-2000:]}"]


if __name__ == "__main__":
    found = [*wrong(), *wrong_in_python()]
    print("\n".join(found) or "the quickstart's table is README's")
    sys.exit(bool(found))
