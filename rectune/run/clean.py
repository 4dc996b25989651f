"""`rectune clean`: what a run folder holds and its last report did not ask for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rectune.run.folder import MARK
from rectune.run.run import open_run


def clean(folder: str | Path, *, dry_run: bool = False) -> list[tuple[Path, int]]:
    """Remove the stages of a finished run that its last `train` or `eval` did not use, and what killed ones left half-written.

    Returns each with its bytes; with `dry_run` nothing is removed. A stage that is needed again is built again. Raises
    FileNotFoundError for a folder that is no finished run, ValueError while another command works in it or where its last report was
    not finished.
    """
    run = open_run(folder)
    with run.folder.lock():
        about = json.loads((run.folder.path / MARK).read_text())
        if not about.get("reported"):
            raise ValueError(
                f"{folder}: it is not known which stages its report needs, as that was not finished. Run `rectune train` or "
                "`rectune eval` to the end first."
            )
        stages = sorted((run.folder.path / "stages").iterdir())
        unused = [(stage, size_of(stage)) for stage in stages if stage.name not in about["used"]]
        for stage, _ in [] if dry_run else unused:
            shutil.rmtree(stage)
    return unused


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
