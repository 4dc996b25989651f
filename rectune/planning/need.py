"""How much memory a stage takes, by part, for any batch and length."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rectune.planning.cards import GB
from rectune.planning.model import bytes_of, make_fake
from rectune.planning.optimisers import optimiser_bytes
from rectune.planning.quantised import QuantisedLinear
from rectune.planning.step import Head, Moment, StepPeaks, StepShape, step_peaks
from rectune.runtime.resident import resident

# CUDA's context with the kernels of PyTorch (0.51 GB on an H100, docs/gpu.md) and cuBLAS' workspace (32 MiB on Hopper, 8 MiB before;
# cuBLAS documentation, "cublasSetWorkspace").
_CUDA_FIXED = round(0.55 * GB)
# What is held beyond tensors, as a share. CUDA, of all that a step makes: PyTorch's caching allocator cuts large blocks and cannot
# always join what is free. On a capped H100 (docs/gpu.md, section 3) it was more than 12 % and less than 20 % for 8B and for 1.7B with
# QLoRA, less than 7 % for others. CPU, of all small blocks that a step makes, freed or not: glibc keeps freed ones, in pieces that fit
# nothing else. With an adapter a constant comes on top. Both are fitted to runs of docs/planning.md.
_CUDA_HELD, _CPU_HELD, _CPU_ADAPTER = 0.18, 0.09, round(0.15 * GB)
_MOST = 4096  # rows; nobody asks for more


@dataclass(frozen=True)
class Need:
    """Bytes at the moment of the peak. `moment`: the end of the forward pass (activations and logits are whole), the end of the
    backward pass (gradients are whole), or the optimiser's update."""

    weights: int
    adapter: int
    gradients: int
    optimiser: int
    activations: int
    logits: int
    fixed: int
    slack: int
    moment: Moment

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(getattr(self, f.name) for f in fields(self) if f.name != "moment")


@dataclass
class StagePlan:
    """A model and how a stage trains it; `need` says what any batch takes.

    `fixed`: resident bytes of a training on the CPU before its model is loaded; None: those of this process, which has loaded the
    same libraries. `head` and `target`: see `StepShape`.
    """

    model: Any  # on the meta device when given, fake afterwards
    device: Literal["cpu", "cuda"]
    optimiser: str
    checkpointing: bool
    checkpointing_arguments: dict[str, Any] | None
    accumulates: bool
    autocast: torch.dtype | None
    target: int
    head: Head = "all"
    fixed: int | None = None
    sequences: int = 1  # that a step forwards for each example
    group: int = 1  # rows whose prompt is forwarded once, their names after it
    keeps_reference: bool = False  # the trained weights once more

    def __post_init__(self) -> None:
        from trl.trainer.utils import add_fused_lm_head

        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.trainable, self.parameters = sum(p.numel() for p in self.trained), parameter_count(self.model)
        self.adapts = hasattr(self.model, "peft_config")
        inner = self.model.get_base_model() if self.adapts else self.model
        self.weights = bytes_of([*self.model.parameters(), *self.model.buffers()])
        self.reference = bytes_of(self.trained) if self.keeps_reference else 0
        self.adapter = bytes_of(self.trained) if self.adapts else 0
        self.state, self.update = optimiser_bytes(self.optimiser, self.trained)
        self.gradients = bytes_of(self.trained)
        if self.checkpointing:
            inner.activation_checkpointing_enable(self.checkpointing_arguments)
            if self.adapts:
                self.model.enable_input_require_grads()
        if not inner.config.is_encoder_decoder:
            add_fused_lm_head(inner, outputs=("log_probs", "entropy", "is_top1"))
        self.model.train()
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        make_fake(self.model, self._mode)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        if self.fixed is None:
            self.fixed = _CUDA_FIXED if self.device == "cuda" else resident()
        self._needs: dict[tuple[int, int], Need] = {}

    def forwarded(self, rows: int, length: int) -> tuple[int, int]:
        """Sequences and tokens of each that a step forwards for `rows` examples of `length` tokens."""
        return -(-rows // self.group) * self.sequences, length + (self.group - 1) * (self.target - 1)

    def asked(self, sequences: int, length: int) -> tuple[int, int]:
        """The examples and their length that were forwarded as so many sequences of so many tokens."""
        return -(-sequences // self.sequences) * self.group, length - (self.group - 1) * (self.target - 1)

    def need(self, rows: int, length: int) -> Need:
        """What a step of `rows` examples of `length` tokens takes."""
        if (rows, length) not in self._needs:
            sequences, tokens = self.forwarded(rows, length)
            shape = StepShape(
                rows=sequences, length=tokens, target=self.target * self.group, head=self.head, accumulates=self.accumulates,
                autocast=self.autocast, device=self.device,
            )  # fmt: skip
            self._needs[rows, length] = self._need(step_peaks(self.model, self._mode, shape))
        return self._needs[rows, length]

    def largest_batch(self, memory: int, length: int, *, near: int = 1) -> int:
        """The most rows of `length` tokens that fit into `memory` bytes, or up to 2 % less; 0 when not one does. The answer itself was
        followed.

        Memory grows nearly evenly with rows. So the first guess takes everything that a step of `near` rows makes to be rows,
        and the following ones are lines through the two nearest known batches.
        """
        start = self.need(near, length)
        rough = start.total - start.activations - start.logits - start.slack
        known = {near: start.total}
        while True:
            below = max((rows for rows, total in known.items() if total <= memory), default=0)
            above = min((rows for rows, total in known.items() if total > memory), default=_MOST + 1)
            guess = _guess(known if len(known) > 1 else {0: rough, **known}, memory)
            if above == below + 1 or (guess <= 1.02 * below and len(known) > 1 and below > 0):
                return below
            guess = min(max(guess, below + 1), above - 1)
            known[guess] = self.need(guess, length).total

    def _need(self, peaks: StepPeaks) -> Need:
        moments: dict[Moment, int] = {
            "forward": peaks.forward,
            "backward": max(peaks.backward, self.gradients),
            "update": self.gradients + self.update,
        }
        moment = max(moments, key=lambda name: moments[name])
        whole = moment != "forward" or self.accumulates
        gradients = self.gradients if whole else 0
        beyond = moments[moment] - gradients
        head = max(0, peaks.forward - peaks.body)
        logits = head if moment == "forward" else 0
        if self.device == "cuda":
            held = _CUDA_HELD * moments[moment]
        else:
            held = _CPU_HELD * peaks.small + (_CPU_ADAPTER if self.adapts else 0)
        return Need(
            weights=self.weights - self.adapter + self.reference, adapter=self.adapter, gradients=gradients, optimiser=self.state,
            activations=beyond - logits, logits=logits, fixed=self.fixed or 0, slack=round(held), moment=moment,
        )  # fmt: skip


def parameter_count(model: Any) -> int:
    """Parameters of a model, those of quantised layers as they were before they were packed."""
    packed = [m for m in model.modules() if isinstance(m, QuantisedLinear)]
    inside = {id(m.weight) for m in packed}
    return sum(int(p.numel()) for p in model.parameters() if id(p) not in inside) + sum(
        m.in_features * m.out_features for m in packed
    )


def _guess(known: dict[int, int], memory: int) -> int:
    """Where the line through the two known batches nearest to `memory` meets it."""
    low, high = sorted(sorted(known, key=lambda rows: abs(known[rows] - memory))[:2])
    slope = max(1.0, (known[high] - known[low]) / (high - low))
    return int(low + (memory - known[low]) / slope + 0.01)  # a batch that fits to the byte is no rounding's victim
