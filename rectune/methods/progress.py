"""How far a training is, and one line for each evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from rectune.runtime.progress import Progress

LOOK = 5.0  # seconds between two looks at the tokens: counting them waits for the device


class TrainingBar(TrainerCallback):  # type: ignore[misc]
    """Shows steps, tokens a second and loss; prints losses and ranking metrics once they are all known."""

    def __init__(self, tokens: Callable[[], int] = lambda: 0) -> None:
        """`tokens()`: how many this attempt and those before it have seen."""
        self._tokens = tokens
        self._progress: Progress | None = None
        self._line: dict[str, float] = {}
        self._loss = self._rate = ""
        self._before, self._began, self._looked = 0, 0.0, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        quiet = args.disable_tqdm or not state.is_world_process_zero
        self._before, self._began = self._tokens(), time.perf_counter()
        self._looked = self._began
        self._progress = Progress(state.max_steps, "training", "steps", at=state.global_step, quiet=quiet, delay=0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._progress is None:
            return
        now = time.perf_counter()
        if now - self._looked >= LOOK:
            self._looked = now
            self._rate = f"{(self._tokens() - self._before) / (now - self._began):,.0f} tokens/s"
        self._progress.note = ", ".join(filter(None, (self._rate, self._loss)))
        self._progress.to(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if self._progress is None or not state.is_world_process_zero:
            return
        if "loss" in logs:
            self._loss = f"loss {float(logs['loss']):.3f}"
        self._line |= {k: float(v) for k, v in logs.items() if "@" in k or k in ("eval_loss", "eval_auc", "eval_rmse")}
        if len(self._line) > 1:
            shown = "  ".join(f"{name.removeprefix('eval_')} {value:.4f}" for name, value in self._line.items())
            tqdm.write(f"epoch {state.epoch:5.1f}  validation: {shown}")
            self._line = {}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """End the bar's line, also where the training failed."""
        if self._progress is not None:
            self._progress.close()
