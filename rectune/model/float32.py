"""Models whose weights are in half precision, calculated in float32 where two passes are to be compared.

Rounding to bfloat16 is chaotic: on a prompt of a few tokens another order of the sums can move a logit by half of the largest one
(SmolLM2-135M: 17 of 31), as much as a fault does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

T = TypeVar("T")
HALF = (torch.bfloat16, torch.float16)


def in_float32(model: Any, calculate: Callable[[], T], *, rounded: bool = False) -> T:
    """What `calculate` returns, in float32 where the weights of `model` are in half precision and torch can: a quantised model, and one
    with kernels of its own or without the memory for it, is calculated as it is. `rounded`: weights are moved, at random, by as much as
    rounding them does."""
    if model.dtype in HALF and not hasattr(model.config, "quantization_config"):
        with suppress(RuntimeError, TypeError, ValueError, AttributeError, IndexError), InFloat32(rounded=rounded):
            return calculate()
    return calculate()


class InFloat32(TorchFunctionMode):
    """Calculate with float32 copies of weights in half precision, one operation at a time. The weights stay as they are."""

    def __init__(self, *, rounded: bool = False) -> None:
        """`rounded`: each copy is off by up to half a unit in the last place of its type."""
        super().__init__()
        self._random = torch.Generator().manual_seed(0) if rounded else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation, every tensor in half precision that it reads made float32 first."""
        kwargs = kwargs or {}
        name = func.__name__
        if name == "__get__":  # an attribute; `dtype` is the one that layers take their own type from
            found = func(*args, **kwargs)
            return torch.float32 if isinstance(found, torch.dtype) and found in HALF else found
        if name == "__set__" or (name.endswith("_") and not name.endswith("__")) or name == "__setitem__":
            return func(*args, **kwargs)  # what is written to stays itself
        args, kwargs = tree_map_only(torch.Tensor, self._float32, (args, kwargs))
        return func(*args, **kwargs)

    def _float32(self, tensor: torch.Tensor) -> torch.Tensor:
        with torch._C.DisableTorchFunction():
            if tensor.dtype not in HALF:
                return tensor
            whole = tensor.float()
            if self._random is not None:
                drawn = torch.rand(whole.shape, generator=self._random)  # on the CPU: the same everywhere
                whole += whole * (drawn.to(whole.device) - 0.5) * torch.finfo(tensor.dtype).eps
            return whole
