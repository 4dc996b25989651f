"""The plain model of a run, and the proof that it is the tuned one: the same logits on the probe, before and after writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rectune.methods.language_model import check_origin
from rectune.methods.probe import EXACT, check_reloaded, compared, probe_ids, probe_logits, refuse, rounding
from rectune.model.adapters import load_tuned
from rectune.model.load import load_plain
from rectune.model.settings import quantization_config, unquantised
from rectune.run.run import Run


def plain_model(run: Run) -> tuple[Any, torch.Tensor, dict[str, Any]]:
    """The tuned model without adapter or quantisation, its logits on the run's probe (length, vocabulary), and how far they
    are from those of the adapter beside the same base, and of the adapter on the quantised base.

    Raises ValueError when the run's own files give other logits than at the end of the training, or merging changed more
    than rounding does.
    """
    tuned, base, settings = run.tuned.folder / "model", run.place("base").folder, run.asked.model
    check_origin(run.loading, tuned)
    ids = probe_ids(tuned)
    found: dict[str, Any] = {}
    trained = None
    if quantization_config(settings) is not None:
        model = load_tuned(settings, base, tuned, run.index, seed=run.asked.seed)
        check_reloaded(model, tuned)
        trained = probe_logits(model, ids)
        del model  # two copies of a large model need not fit
    model = load_tuned(unquantised(settings), base, tuned, run.index, seed=run.asked.seed)
    if trained is None:
        check_reloaded(model, tuned)
    logits = probe_logits(model, ids)
    if hasattr(model, "peft_config"):
        beside, model = logits, model.merge_and_unload().eval()
        logits = probe_logits(model, ids)
        found["merging"] = compared(logits, beside)
        refuse(found["merging"], rounding(model, ids, logits), "merging the adapter")
    if trained is not None:
        found["leaving_quantisation"] = compared(logits, trained)
    return model, logits, found


def check_written(run: Run, folder: Path, logits: torch.Tensor) -> dict[str, float]:
    """Load a written folder with transformers alone and compare its logits on the probe. Raises ValueError where they differ."""
    ids = probe_ids(run.tuned.folder / "model")
    found = compared(probe_logits(load_plain(unquantised(run.asked.model), folder), ids), logits)
    refuse(found, EXACT, "writing and loading the folder")
    return found
