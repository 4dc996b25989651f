"""What the tests of whole runs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rectune.cli import main


def results(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())["results"]


def train(recipe: Path, *more: str) -> None:
    assert main(["train", str(recipe), "--traceback", *more]) == 0


def stages(folder: Path) -> dict[str, float]:
    return {stage.name: stage.stat().st_mtime_ns for stage in (folder / "stages").iterdir()}
