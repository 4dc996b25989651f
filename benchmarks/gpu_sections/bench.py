"""What every section of the GPU benchmark writes with: its clock, its rows, its file."""

from __future__ import annotations

import datetime
import gc
import importlib.metadata
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rectune.runtime.files import write_atomic

ROOT = Path(__file__).parents[2]
LIBRARIES = ("transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers")
MARGIN = 2.0  # seconds before the end of the clock in which nothing is begun


class Bench:
    """One section on one device: rows are measured until its clock ends, and each is in the file the moment it is known.

    `file` holds the rows of earlier calls, too; they are not measured again. `inputs`: the folder of what was prepared, or None.
    `only`: parts of names of the rows that this call is for. `beside`: how many other processes have the card meanwhile.
    """

    def __init__(
        self, section: str, file: Path, *, card: dict[str, Any], seconds: float, quick: bool, inputs: Path | None,
        only: Sequence[str] | None = None, beside: int = 0,
    ) -> None:  # fmt: skip
        """Raises ValueError where the file holds figures of another device, or of small sizes beside large ones."""
        self.section, self.file, self.card, self.quick, self.inputs = section, file, card, quick, inputs
        self.only, self.beside = only, beside
        self.cuda = card["device"] == "cuda"
        self._end = time.monotonic() + seconds
        self._began = time.monotonic()
        held = read(file)
        before = held.get("card") or {}
        if held.get("rows") and (before["name"], before["torch"], held["quick"]) != (
            card["name"],
            card["torch"],
            quick,
        ):
            raise ValueError(
                f"{file} holds figures of {before['name']} with PyTorch {before['torch']}{' (--quick)' if held['quick'] else ''}. Give "
                "another --out, or measure anew with --again."
            )
        self.rows: dict[str, dict[str, Any]] = held.get("rows", {})
        self.failed: dict[str, str] = {}
        self.left: list[str] = []
        self.reason = ""
        self._before = float(held.get("seconds", 0.0))
        self._write("running")

    @property
    def remaining(self) -> float:
        """Seconds until the clock ends."""
        return self._end - time.monotonic() - MARGIN

    def wants(self, row: str, *, needs: float = 0.0) -> bool:
        """Whether a row is still to be measured and there is time: `needs` seconds by its caller's estimate."""
        if row in self.rows or not self.asks(row):
            return False
        if self.remaining < max(needs, 0.0):
            if row not in self.left:
                self.left.append(row)
            return False
        return True

    def asks(self, row: str) -> bool:
        """Whether this call is for that row."""
        return self.only is None or any(part in row for part in self.only)

    def keep(self, row: str, files: Sequence[Path]) -> None:
        """Copy files that say more of a row than its figures, to `reports/SECTION/ROW` beside the figures."""
        place = self.file.parent / "reports" / self.section / re.sub(r"[^a-zA-Z0-9]+", "-", row)
        place.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, place / file.name)

    def measure(self, row: str, work: Callable[[], dict[str, Any]], *, needs: float = 0.0) -> None:
        """Put what `work` returns into the row, unless it is there or there is no time. What it raises is the row's error."""
        if not self.wants(row, needs=needs):
            return
        started = time.monotonic()
        try:
            self.rows[row] = {**work(), "took_s": round(time.monotonic() - started, 1)}
            told = _short(self.rows[row])
        except Exception as error:
            text = " ".join(str(error).split())
            self.failed[row] = f"{type(error).__name__}: {text}"[:600]
            told = f"failed, {self.failed[row][:200]}"
        self.tidy()
        self._write("running")
        self.say(f"{row}: {told}")

    def missing(self, what: str) -> None:
        """Say which input the section would need; it ends without figures."""
        self.reason = what
        self.say(f"not measured: {what}")

    def tidy(self) -> None:
        """Let memory go between rows."""
        gc.collect()
        if self.cuda:
            import torch

            torch.cuda.empty_cache()

    def close(self) -> str:
        """Write how the section ended: 'done', 'partly', 'failed' or 'no input'."""
        state = "no input" if self.reason and not self.rows else "done"
        if self.left or self.failed:
            state = "partly" if self.rows else "failed"
        self._write(state)
        return state

    def say(self, text: str) -> None:
        """Print at once."""
        print(f"  {text}", flush=True)

    def _write(self, state: str) -> None:
        about = {
            "section": self.section, "state": state, "card": self.card, "quick": self.quick, "seed": 0, **origin(),
            "seconds": round(self._before + time.monotonic() - self._began, 1), "rows": self.rows, "failed": self.failed,
            "left": self.left, "reason": self.reason, "beside": self.beside,
        }  # fmt: skip
        write_atomic(self.file, json.dumps(about, indent=1))


def origin() -> dict[str, Any]:
    """Date, commit and versions."""
    out = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    packed = ROOT / "COMMIT"  # a copy without a history says here what it was made of
    commit = packed.read_text().strip() if packed.exists() else out.stdout.strip() or None
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES if _installed(name)}
    return {"date": datetime.date.today().isoformat(), "commit": commit, "versions": versions}


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def read(file: Path) -> dict[str, Any]:
    """The figures in a file, or an empty mapping where there is none."""
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _short(row: dict[str, Any]) -> str:
    plain = {k: v for k, v in row.items() if isinstance(v, int | float | str | bool)}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in plain.items())
