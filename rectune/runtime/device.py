"""The device that `model.device` means on this machine."""

from __future__ import annotations

from typing import Any

from rectune.runtime.processes import local_rank


def device_of(asked: str) -> Any:
    """The `torch.device` of 'auto', 'cpu' or 'cuda': one GPU a process, the CPU where torch sees none."""
    import torch

    if asked == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank())
