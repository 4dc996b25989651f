"""One progress bar for a training, and one line for each evaluation."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback


class TrainingBar(TrainerCallback):  # type: ignore[misc]
    """Shows steps and loss on a bar; prints losses and ranking metrics once they are all known."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._line: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        quiet = args.disable_tqdm or not state.is_world_process_zero
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step", disable=quiet)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if self._bar is None or not state.is_world_process_zero:
            return
        if "loss" in logs:
            self._bar.set_postfix(loss=f"{float(logs['loss']):.3f}")
        self._line |= {k: float(v) for k, v in logs.items() if "@" in k or k in ("eval_loss", "eval_auc", "eval_rmse")}
        if len(self._line) > 1:
            shown = "  ".join(f"{name.removeprefix('eval_')} {value:.4f}" for name, value in self._line.items())
            tqdm.write(f"epoch {state.epoch:5.1f}  validation: {shown}")
            self._line = {}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """End the bar's line, also where the training failed."""
        if self._bar is not None:
            self._bar.close()
