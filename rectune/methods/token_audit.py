"""The new-token audit: are new tokens really trained and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import TrainerCallback

from rectune.model.pieces import uncut
from rectune.runtime.files import write_atomic


class TokenAudit(TrainerCallback):  # type: ignore[misc]
    """Checks at the first optimizer step that has a gradient (of reinforcement not every one has) that it reaches the rows of the new
    tokens, in and out."""

    def __init__(self, new_tokens: list[int], kept: Path) -> None:
        """`kept` is a file that remembers the first step for a training that is killed and continued."""
        self._new, self._kept = new_tokens, kept
        self.report: dict[str, Any] = {"new_tokens": len(new_tokens)}
        if kept.exists():
            self.report = json.loads(kept.read_text())

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if not self._new or "gradient_in" in self.report:
            return
        if not any(bool(uncut(p.grad).any()) for p in model.parameters() if p.grad is not None):
            return
        gradients = row_gradients(model, self._new)
        for side, gradient in gradients.items():
            self.report[f"gradient_{side}"] = int((gradient.abs().sum(-1) > 0).sum())
            if self.report[f"gradient_{side}"] == 0:
                raise ValueError(
                    f"new-token audit: no gradient reaches the {side}put rows of the {len(self._new)} new tokens at the first "
                    "step, so they would stay as they are. No example may hold an item's name, or the adapter freezes them."
                )
        if args.should_save:
            write_atomic(self._kept, json.dumps(self.report))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._new and state.global_step and "gradient_in" not in self.report:
            raise ValueError(
                f"new-token audit: none of {state.global_step} steps had a gradient, so the model is what it was. A reward that differs inside no group "
                "teaches nothing: take larger groups, more prompts a step, or `hints`."
            )


def row_gradients(model: Any, ids: list[int]) -> dict[str, torch.Tensor]:
    """Gradient of the rows `ids` of the input and the output embeddings, each (ids, hidden); 'in' only if tied."""
    sides = {"in": model.get_input_embeddings(), "out": model.get_output_embeddings()}
    out = {}
    for side, layer in sides.items():
        delta = _delta(layer) if _delta(layer) is not None else _delta(sides["in"]) if _shares(sides) else None
        parameter = delta if delta is not None else layer.weight
        gradient = uncut(parameter.grad) if parameter.grad is not None else torch.zeros(parameter.shape)
        out[side] = gradient.float() if delta is not None else gradient[ids].float()
    return out


def _delta(layer: Any) -> Any:
    """PEFT's trainable rows of a layer, or None where the layer has none of its own."""
    adapter = layer.token_adapter if hasattr(layer, "token_adapter") else None
    deltas = list(adapter.trainable_tokens_delta.values()) if adapter is not None else []
    return deltas[0] if deltas else None


def _shares(sides: dict[str, Any]) -> bool:
    return _delta(sides["out"]) is None or sides["in"].weight is sides["out"].weight


def check_saved(folder: Path, model: Any, new_tokens: list[int], *, adapter: bool) -> dict[str, Any]:
    """Check the saved folder: an adapter holds the new rows and no whole embedding matrix; whole weights hold all.

    Raises ValueError naming what is missing or too much.
    """
    file = folder / ("adapter_model.safetensors" if adapter else "model.safetensors")
    if not file.exists():  # sharded whole weights
        return {"saved": sorted(f.name for f in folder.glob("*.safetensors"))}
    with safe_open(file, "pt") as saved:
        shapes = {key: tuple(saved.get_slice(key).get_shape()) for key in saved.keys()}  # noqa: SIM118
    rows = [key for key in shapes if "trainable_tokens" in key or "token_adapter" in key]
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    whole = [key for key, shape in shapes.items() if shape[:1] == (vocabulary,) and "lora" not in key]
    if adapter and whole:
        raise ValueError(f"new-token audit: the adapter holds the whole matrix {whole[0]} ({shapes[whole[0]]}).")
    if adapter and new_tokens and not rows:
        raise ValueError(f"new-token audit: the adapter in {folder} does not hold the rows of the new tokens.")
    if not adapter and new_tokens and not whole:
        raise ValueError(f"new-token audit: {file} holds no embedding matrix of {vocabulary} rows.")
    return {"saved_bytes": file.stat().st_size, "saved_rows": rows or whole}
