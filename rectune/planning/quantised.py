"""What stands in for bitsandbytes' layers where nothing may be loaded: the same bytes, the same lifetimes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_BLOCK, _NESTED_BLOCK = 64, 256  # bitsandbytes' block sizes of the scales, and of the scales of the scales


class QuantisedLinear(nn.Linear):
    """A frozen linear layer of 4 or 8 bits a weight, as `Linear4bit` and `Linear8bitLt` hold it.

    NF4 (Dettmers et al., QLoRA, 2023, section 3): half a byte a weight and a float32 scale for 64 of them; with double
    quantisation a byte for 64 and a float32 for 64 x 256. 8 bit (LLM.int8, 2022): a byte a weight, a float32 scale a row.
    """

    def __init__(self, like: nn.Module, *, bits: int, nested: bool, compute: torch.dtype) -> None:
        rows, columns = _shape(like)
        super().__init__(columns, rows, bias=like.bias is not None, device="meta")
        count = rows * columns
        packed = torch.empty(count * bits // 8, dtype=torch.uint8, device="meta")
        self.weight = nn.Parameter(packed, requires_grad=False)  # type: ignore[misc]
        self.bits, self.compute = bits, compute
        scales = 4 * rows if bits == 8 else count // _BLOCK * (1 if nested else 4)
        scales += 4 * (count // _BLOCK // _NESTED_BLOCK) if bits == 4 and nested else 0
        self.register_buffer("scales", torch.empty(scales, dtype=torch.uint8, device="meta"), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) -> (…, out). 4 bit computes in `compute` and gives back the type of its input."""
        inner = x.to(self.compute) if self.bits == 4 else x
        out: torch.Tensor = _Product.apply(inner, self.weight, self.out_features, self.bits)  # type: ignore[no-untyped-call]
        return (out if self.bias is None else out + self.bias.to(out.dtype)).to(x.dtype)


class _Product(torch.autograd.Function):
    """bitsandbytes' MatMul4Bit and MatMul8bitLt (0.50): what they make on the way and what they keep."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, packed: torch.Tensor, rows: int, bits: int) -> torch.Tensor:
        ctx.bits, ctx.rows, ctx.columns = bits, rows, x.shape[-1]
        if bits == 4:  # keeps the packed weight only; dequantises the layer for the product
            ctx.save_for_backward(packed)
            return x @ torch.empty(ctx.columns, rows, dtype=x.dtype, device=x.device)
        ctx.save_for_backward(packed, x)  # MatMul8bitLt keeps its input
        half = x.to(torch.float16)
        quantised = torch.empty(x.shape, dtype=torch.int8, device=x.device)
        summed = torch.empty((*x.shape[:-1], rows), dtype=torch.int32, device=x.device)
        del half, quantised
        return summed.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        gradient = gradients[0]
        weight = torch.empty(ctx.rows, ctx.columns, dtype=gradient.dtype, device=gradient.device)
        return gradient @ weight, None, None, None


def quantise(model: Any, *, bits: int, nested: bool, compute: torch.dtype) -> None:
    """Replace the layers that bitsandbytes would replace: all linear ones but the head."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear | Conv1D) and child is not head:
                setattr(module, name, QuantisedLinear(child, bits=bits, nested=nested, compute=compute))
    for parameter in model.parameters():
        parameter.requires_grad = False


def _shape(layer: nn.Module) -> tuple[int, int]:
    """(rows, columns); GPT-2's Conv1D holds its weight the other way round."""
    a, b = layer.weight.shape  # type: ignore[union-attr, misc]
    return (int(a), int(b)) if isinstance(layer, nn.Linear) else (int(b), int(a))
