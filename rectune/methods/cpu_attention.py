"""Attention of a model in half precision that trains on a CPU: over few tokens torch's kernel takes several times as long as in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

SDPA = "sdpa"
HALF = (torch.bfloat16, torch.float16)
FEW = 128  # tokens of a row; of more its kernel is as fast, and of many faster


@contextmanager
def attention_in_float32() -> Iterator[None]:
    """For the time being, `sdpa` attention over at most 128 tokens multiplies in float32 where a model in half precision is in training mode on a CPU; its
    output is of the model's type. In a LoRA step of SmolLM2 over 32 rows of 36 tokens the kernel's backward pass in bfloat16 was a quarter of the
    step (torch 2.13; `benchmarks/cpu_attention.py`).
    """
    library = ALL_ATTENTION_FUNCTIONS[SDPA]

    def attention(
        module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **more: Any
    ) -> Any:
        if not (module.training and query.device.type == "cpu" and query.dtype in HALF and key.shape[2] <= FEW):
            return library(module, query, key, value, mask, **more)
        mask, bias = _wide(mask), _wide(more.pop("position_bias", None))
        out, weights = library(module, query.float(), key.float(), value.float(), mask, position_bias=bias, **more)
        return out.to(query.dtype), weights

    ALL_ATTENTION_FUNCTIONS[SDPA] = attention
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[SDPA]


def _wide(scores: Any) -> Any:
    """What is added to attention's scores, in float32; a mask of bools as it is."""
    return scores.float() if scores is not None and scores.dtype in HALF else scores
