"""One process or several: who am I, wait for the others, gather."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_by_itself = False


@contextmanager
def alone() -> Iterator[None]:
    """Within it this process works for itself, whatever the others do."""
    global _by_itself
    before, _by_itself = _by_itself, True
    try:
        yield
    finally:
        _by_itself = before


def world_size() -> int:
    """How many processes work on this run (1 without a launcher)."""
    return 1 if _by_itself else int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0."""
    return 0 if _by_itself else int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """The number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def start_processes() -> None:
    """Join the process group, where there are several processes. They may wait a day while the main one builds."""
    if world_size() > 1:
        _state()


def leave_processes() -> None:
    """Leave the process group, if this process has joined one, when nothing is left to say to the others.

    A process that ends as a member may be ended by its gloo threads ("terminate called without an active exception"), though its work is done.
    """
    if world_size() == 1:
        return
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def wait() -> None:
    """Return when every process is here."""
    if world_size() > 1:
        _state().wait_for_everyone()


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, in their order, on each of them."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    _state()
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def _state() -> Any:
    """Accelerate's process state, which starts the process group (gloo on CPUs, NCCL on GPUs)."""
    from datetime import timedelta

    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
