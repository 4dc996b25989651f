"""One training step on fake tensors: how many bytes live at its peak, whatever the depth and the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rectune.methods.cpu_attention import attention_in_float32
from rectune.methods.target_head import score
from rectune.planning.kernels import FusedHead, cuda_kernels
from rectune.planning.live_memory import LiveMemory

Moment = Literal["forward", "backward", "update"]


Head = Literal["all", "targets", "library"]


@dataclass(frozen=True)
class StepShape:
    """What a step is made of. `rows` x `length` tokens a device; `target`: tokens of a completion (an encoder-decoder's decoder,
    and the scored positions where `head` is 'targets'; 'all': every position is scored; 'library': and by TRL's own head, in float32). `autocast`:
    mixed precision."""

    rows: int
    length: int
    target: int
    head: Head
    accumulates: bool
    autocast: torch.dtype | None
    device: Literal["cpu", "cuda"]


@dataclass(frozen=True)
class StepPeaks:
    """Bytes alive beyond weights and optimiser state: `forward` up to the gradient of the last layer, `backward` at its end;
    `body`: what the forward pass left before the head; `small`: what the whole step made in small blocks, freed or not (see
    `LiveMemory`). All are linear in the number of layers."""

    forward: int
    backward: int
    body: int
    small: int

    def deeper(self, other: StepPeaks, layers: float) -> StepPeaks:
        """The line through this and `other`, `layers` steps of the same width further."""
        names = ("forward", "backward", "body", "small")
        return StepPeaks(*(round(_line(getattr(self, n), getattr(other, n), layers)) for n in names))


def _line(start: float, following: float, steps: float) -> float:
    return start + (following - start) * steps


def step_peaks(model: Any, mode: FakeTensorMode, shape: StepShape) -> StepPeaks:
    """Follow a step of `model`, whose tensors are fake ones of `mode`. Stacks of equal layers are followed at two depths, and
    the rest is a line: nothing but layers is added, each with the same activations and the same gradients."""
    stack = _equal_layers(model)
    if stack is None or len(stack) <= 3:
        return _follow(model, mode, shape, stack)
    depth = len(stack)
    with _first(stack, 2):
        two = _follow(model, mode, shape, stack)
    with _first(stack, 3):
        three = _follow(model, mode, shape, stack)
    return two.deeper(three, depth - 2)


def _equal_layers(model: Any) -> Any:
    """The stack of layers of a decoder whose layers are all of one size, or None."""
    config = model.config.get_text_config()
    if config.is_encoder_decoder:
        return None
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.num_hidden_layers:
            sizes = {tuple(p.shape for p in layer.parameters()) for layer in module}
            return module if len(sizes) == 1 else None
    return None


@contextlib.contextmanager
def _first(stack: Any, layers: int) -> Iterator[None]:
    """The stack with its first layers only."""
    whole = dict(stack._modules)
    stack._modules = dict(list(whole.items())[:layers])
    try:
        yield
    finally:
        stack._modules = whole


def _follow(model: Any, mode: FakeTensorMode, shape: StepShape, stack: Any) -> StepPeaks:
    memory, body = LiveMemory(), [0]
    trained = [p for p in model.parameters() if p.requires_grad]
    memory.hold([*model.parameters(), *model.buffers()])
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    hooks = [inner.base_model.register_forward_hook(lambda *_: body.__setitem__(0, memory.live))]
    if stack is not None:
        hooks.append(stack[0].register_forward_hook(_marks_the_end(memory)))
    kernels = cuda_kernels() if shape.device == "cuda" else attention_in_float32()
    try:
        with mode, kernels, memory:
            if shape.accumulates:
                for parameter in trained:
                    parameter.grad = torch.empty_like(parameter)
            with _autocast(shape):
                loss = _loss(model, inner, shape)
            loss.backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in trained:
            parameter.grad = None
    front = memory.peaks.get("forward", 0)
    return StepPeaks(front, memory.peaks.get("end", front), body[0], memory.small)


def _marks_the_end(memory: LiveMemory) -> Any:
    """A forward hook of the first layer: when the gradient of its output is there, the backward pass is at its end."""

    def hook(layer: Any, inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: setattr(memory, "part", "end"))

    return hook


def _autocast(shape: StepShape) -> Any:
    return torch.autocast("cpu", dtype=shape.autocast) if shape.autocast else contextlib.nullcontext()


def _loss(model: Any, inner: Any, shape: StepShape) -> torch.Tensor:
    """The loss as the trainers compute it, padded batches with a mask of (rows, 1, length, length)."""
    rows, length = shape.rows, shape.length
    ids = torch.zeros(rows, length, dtype=torch.long)
    if inner.config.is_encoder_decoder:
        mask = torch.ones(rows, 1, 1, length, dtype=torch.bool)
        labels = torch.zeros(rows, shape.target, dtype=torch.long)
        return torch.as_tensor(model(input_ids=ids, attention_mask=mask, labels=labels).loss)
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool)
    if shape.head == "library":
        out = model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False, fused_lm_head=True)
        return torch.as_tensor(-out.log_probs.sum())
    body = inner.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    scored = body[:, -shape.target :] if shape.head == "targets" else body
    hidden = scored.reshape(-1, scored.shape[-1])
    if shape.device == "cpu":
        labels = torch.zeros(hidden.shape[0], dtype=torch.long)
        log_probs, *_ = score(hidden, labels, inner.get_output_embeddings(), inner.config.get_text_config())
        return -log_probs.sum()
    scores = FusedHead.apply(hidden, inner.get_output_embeddings().weight)  # type: ignore[no-untyped-call]
    return torch.as_tensor(scores).sum()
