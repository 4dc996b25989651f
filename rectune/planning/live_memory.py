"""Counts the bytes of tensors that are alive while fake tensors go through a training step."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

HEAP_BLOCK = 2**25  # glibc maps larger blocks and gives them back when they are freed (mallopt(3), M_MMAP_THRESHOLD)


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every storage from the operation that makes it to its end, under `FakeTensorMode`.

    A fake tensor has a shape, a type and a lifetime, but no memory, so a step of an 8B model is followed on a laptop. Views
    share a storage and count once. `peaks[part]`: the most bytes alive while `part` was set, beyond what `hold` was given.
    `small`: the bytes of all blocks below HEAP_BLOCK ever made, freed or not.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.small = 0
        self.peaks: dict[str, int] = {}
        self.part = "forward"
        self._bytes: dict[int, int] = {}

    def hold(self, tensors: Iterable[torch.Tensor]) -> None:
        """Tensors that are there all the time; they are not counted."""
        for tensor in tensors:
            self._bytes[tensor.untyped_storage()._cdata] = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self._follow(out)
        elif isinstance(out, list | tuple):
            for leaf in out:  # operations give tensors, or flat lists of them
                if isinstance(leaf, torch.Tensor):
                    self._follow(leaf)
        return out

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._bytes:
            return
        self._bytes[key] = storage.nbytes()
        if storage.nbytes() < HEAP_BLOCK:
            self.small += storage.nbytes()
        self.live += storage.nbytes()
        weakref.finalize(storage, self._forget, key)
        self.peaks[self.part] = max(self.peaks.get(self.part, 0), self.live)

    def _forget(self, key: int) -> None:
        self.live -= self._bytes.pop(key)
