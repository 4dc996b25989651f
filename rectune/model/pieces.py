"""Models whose weights are cut into pieces over processes (FSDP2), and how they are had whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


def whole(model: Any, *, here: bool = True) -> Any:
    """The model itself, or where its weights are cut a copy that holds all of them: a call of that waits for no other process, so each may make as many
    as it likes. All processes must ask for it; one that does not want it `here` gets None. The copy has the memory of one whole model, and goes with its
    last name."""
    from torch.distributed.fsdp import FSDPModule

    pieces: type = FSDPModule
    if not isinstance(model, pieces):
        return model
    cut: Any = model
    from accelerate import init_empty_weights
    from torch.distributed.checkpoint.state_dict import get_model_state_dict
    from transformers import AutoModelForCausalLM

    weights = {}
    for name, piece in get_model_state_dict(
        cut
    ).items():  # one after the other: who keeps none holds a single matrix whole
        value = uncut(piece)
        if here:
            weights[name] = value
    if not here:
        return None
    with init_empty_weights():
        copy = AutoModelForCausalLM.from_config(cut.config)
        if hasattr(cut, "peft_config"):
            from peft import PeftModel

            copy = PeftModel(copy, cut.peft_config["default"])
    copy.load_state_dict(weights, assign=True)
    if not hasattr(cut, "peft_config"):
        copy.tie_weights()
    for buffer in copy.buffers():
        if buffer.device.type != "meta":  # what PEFT keeps of rows that it trains is never read
            buffer.data = buffer.to(next(cut.parameters()).device)
    return copy.train(cut.training)


@contextmanager
def tied_to_see(model: Any) -> Iterator[None]:
    """Within it the embeddings of an adapter with trained rows show the one weight that they share, for Accelerate, which cuts them together only where
    they do: PEFT makes a new matrix each time that it is asked."""
    sides = [model.get_input_embeddings(), model.get_output_embeddings()]
    bases = [side.token_adapter.base_layer.weight for side in sides if hasattr(side, "token_adapter")]
    shown = len(bases) == len(sides) and bases[0] is bases[1]
    for side in sides if shown else []:
        side.__dict__["weight"] = bases[0]
    try:
        yield
    finally:
        for side in sides if shown else []:
            del side.__dict__["weight"]


def drop_second_names(model: Any, file: Path) -> None:
    """Leave out of an adapter's checkpoint that torch gathered the further names of weights that several modules share: it writes all of them and fails over
    them when it loads. Nothing happens where there is no such file."""
    if not (file.exists() and hasattr(model, "peft_config")):  # whole weights are loaded by all their names
        return
    first = {name for name, _ in model.named_parameters()}
    second = {name for name, _ in model.named_parameters(remove_duplicate=False)} - first
    saved = torch.load(file, weights_only=True)
    if second & set(saved):
        torch.save({name: value for name, value in saved.items() if name not in second}, file)


def uncut(tensor: Any) -> torch.Tensor:
    """The whole of a tensor, which may be cut over processes; all of them must ask for it."""
    return torch.as_tensor(tensor.full_tensor()) if hasattr(tensor, "full_tensor") else tensor
