"""What a training really took: peak memory, tokens and steps a second."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rectune.runtime.files import write_atomic
from rectune.runtime.resident import resident

FILE = "measured.json"


@dataclass
class Totals:
    """Sums over all attempts of a training that was stopped and continued; peaks are the largest of them.

    `before`: what was there when the last attempt began. `seconds` are those of training steps, evaluations and saves left out. `tokens` are those that attention sees, padding left out.
    `largest_batch`: rows x tokens, padding included, of the batch with the most positions. Memory in bytes.
    """

    seconds: float = 0.0
    steps: int = 0
    tokens: int = 0
    attempts: int = 0
    largest_batch: list[int] = field(default_factory=lambda: [0, 0])
    before: int = 0
    peak: int = 0
    reserved: int | None = None
    of: str = ""


class Meter(TrainerCallback):  # type: ignore[misc]
    """Measures a training; what it knows is written at each save, so that a continued training reports both parts."""

    def __init__(self, kept: Path, device: torch.device) -> None:
        """`kept`: a file that remembers the totals of earlier attempts."""
        self._kept, self._device = kept, device
        self.totals = Totals(**json.loads(kept.read_text())) if kept.exists() else Totals()
        self._tokens: torch.Tensor | int = (
            0  # since the totals were last brought up to date; on the device, so nobody waits
        )
        self._since = 0.0

    def saw(self, inputs: dict[str, Any]) -> None:
        """Count a batch: `input_ids` (rows, tokens), and the decoder's `labels` of an encoder-decoder are not counted."""
        rows, tokens = inputs["input_ids"].shape
        if rows * tokens > self.totals.largest_batch[0] * self.totals.largest_batch[1]:
            self.totals.largest_batch = [rows, tokens]
        mask = inputs.get("attention_mask")
        self._tokens = self._tokens + (rows * tokens if mask is None else mask.sum())

    def seen(self) -> int:
        """Tokens so far, those of earlier attempts included; waits for the device."""
        return self.totals.tokens + int(self._tokens)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.totals.attempts += 1
        self.totals.of = _start(self._device)
        self.totals.before = _now(self._device)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.totals.steps += 1
        self.totals.seconds += time.perf_counter() - self._since

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.should_save:
            write_atomic(self._kept, json.dumps(asdict(self.up_to_date())))

    def up_to_date(self) -> Totals:
        """The totals, with the tokens counted so far and the peak so far."""
        self.totals.tokens += int(self._tokens)
        self._tokens = 0
        peak, reserved = _peak(self._device)
        self.totals.peak = max(self.totals.peak, peak)
        if reserved is not None:
            self.totals.reserved = max(self.totals.reserved or 0, reserved)
        return self.totals


def _start(device: torch.device) -> str:
    """Start measuring peaks anew; says what is measured."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return "GPU memory of the training (torch.cuda.max_memory_allocated); reserved by the allocator beside it"
    try:
        Path("/proc/self/clear_refs").write_text("5")  # since Linux 4.0: sets VmHWM to the resident size of now
    except OSError:
        return "resident memory of the whole process since its start (VmHWM)"
    return "resident memory of the whole process, Python and libraries included, while training (VmHWM)"


def _now(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else resident()


def _peak(device: torch.device) -> tuple[int, int | None]:
    """(peak bytes, peak reserved bytes or None)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    return resident("VmHWM"), None
