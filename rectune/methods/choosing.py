"""How a training chooses its checkpoint: ranking metrics at each evaluation, and when to stop waiting for a better one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from rectune.model.pieces import whole


@dataclass
class Choosing:
    """Keys of our own beside the library's, for every method that trains with a transformers Trainer."""

    ranked_rows: int = field(
        default=512,
        metadata={
            "help": "Validation rows that are ranked or answered at each evaluation (eval_recall@10, eval_ndcg@10, eval_auc)."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations without a better `metric_for_best_model`."},
    )
    save_minutes: float = field(
        default=10.0,
        metadata={
            "help": "Where `save_strategy` is 'no': a checkpoint every so many minutes, with the next line of losses, so that a training that was "
            "stopped goes on from there; 0: none."
        },
    )


class RankedMetrics(TrainerCallback):  # type: ignore[misc]
    """Adds ranking metrics to what an evaluation found, so that the best checkpoint can be chosen by them."""

    def __init__(self, trainer: Any, rank_validation: Callable[[Any], dict[str, float]]) -> None:
        self._trainer, self._rank = trainer, rank_validation

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        model = whole(self._trainer.accelerator.unwrap_model(self._trainer.model))
        was_training = model.training
        found = {f"eval_{name}": value for name, value in self._rank(model.eval()).items()}
        model.train(was_training)
        self._trainer.log(dict(found))
        metrics.update(found)


class Patience(EarlyStoppingCallback):  # type: ignore[misc]
    """Early stopping that a continued training takes up where it was: evaluations since the best one are counted from its log."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        name = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
        steps = {entry["step"] for entry in state.log_history if name in entry}
        self.early_stopping_patience_counter = sum(step > (state.best_global_step or 0) for step in steps)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


def early_stopping(config: Any) -> list[TrainerCallback]:
    """The callback that `early_stopping_patience` asks for, if any. Raises ValueError when there is nothing to watch."""
    patience = vars(config).get("early_stopping_patience")  # a method of another kind has keys of its own
    if patience is None:
        return []
    if patience < 1:
        raise ValueError(f"`early_stopping_patience` must be at least 1 evaluation, got {patience}.")
    if not (config.load_best_model_at_end and config.metric_for_best_model):
        raise ValueError(
            "`early_stopping_patience` needs `load_best_model_at_end: true` and a `metric_for_best_model` such as eval_auc."
        )
    return [Patience(early_stopping_patience=patience)]
