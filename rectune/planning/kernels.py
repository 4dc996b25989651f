"""What CUDA kernels keep for the backward pass where the CPU's would keep something else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def cuda_kernels() -> Iterator[None]:
    """Fake CPU tensors take the CPU's kernels; this takes back the two differences that weigh.

    Attention with dropout: the CPU falls back to the T x T matrix, CUDA's fused kernels keep q, k, v, out, a log-sum-exp and
    a seed. Dropout: the CPU keeps noise of its input's type, CUDA a mask of bytes (`native_dropout`). The functions are replaced
    for the time being, as a TorchFunctionMode is not asked when checkpointed layers are computed again.
    """
    functional: Any = torch.nn.functional
    attention, dropout = functional.scaled_dot_product_attention, functional.dropout

    def without_dropout(
        query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, **rest: Any
    ) -> Any:
        return attention(query, key, value, attn_mask, 0.0, **rest)

    def of_bytes(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        return torch.native_dropout(input, p, True)[0] if training and p > 0 else input

    functional.scaled_dot_product_attention, functional.dropout = without_dropout, of_bytes
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, functional.dropout = attention, dropout


class FusedHead(torch.autograd.Function):
    """The buffers of TRL's fused head on a CUDA device (`trl.kernels.chunked_logprob`, 1.16), which scores without logits.

    A tile of 4,096 positions x 32,768 tokens in the compute type, and in the backward pass float32 gradients of the hidden
    states and, where it is trained, of the whole head.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """hidden (N, d), weight (V, d) -> (N,)."""
        ctx.save_for_backward(hidden, weight)
        ctx.compute = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
        kept = _tile(hidden, weight, ctx.compute)
        out = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        del kept
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        hidden, weight = ctx.saved_tensors
        kept = _tile(hidden, weight, ctx.compute)
        to_hidden = torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device)
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = torch.empty(weight.shape, dtype=torch.float32, device=hidden.device)
        del kept
        return to_hidden.to(hidden.dtype), None if to_weight is None else to_weight.to(weight.dtype)


def _tile(hidden: torch.Tensor, weight: torch.Tensor, compute: torch.dtype) -> list[torch.Tensor]:
    """The product of 4,096 positions with 32,768 tokens, and that part of the head where it has to be cast."""
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE as WIDE

    rows = min(hidden.shape[0], 4096)
    made = [torch.empty((rows, WIDE), dtype=compute, device=hidden.device)]
    if weight.dtype != compute:
        made.append(torch.empty((min(WIDE, weight.shape[0]), weight.shape[1]), dtype=compute, device=hidden.device))
    return made
