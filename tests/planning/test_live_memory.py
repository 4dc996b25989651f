"""Bytes that live during a step, counted by hand."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rectune.planning.live_memory import LiveMemory


def test_what_lives_at_once_is_counted_and_what_died_is_not() -> None:
    memory = LiveMemory()
    with FakeTensorMode(), memory:
        one = torch.empty(1000)  # 4,000 bytes
        two = one + 1  # 8,000 together
        del one
        three = two.view(10, 100)  # a view is no memory
        four = torch.empty(500, dtype=torch.bfloat16)  # 1,000
        assert memory.live == 5000
        del two, three, four
    assert memory.peaks == {"forward": 8000}
    assert memory.live == 0
    assert memory.small == 9000  # all that was made


def test_blocks_that_glibc_gives_back_are_not_small() -> None:
    memory = LiveMemory()
    with FakeTensorMode(), memory:
        large, below = torch.empty(2**23), torch.empty(2**23 - 1)  # of four bytes
        del large, below
    assert memory.small == 2**25 - 4
    assert memory.peaks == {"forward": 2**26 - 4}


def test_tensors_that_are_always_there_are_left_out() -> None:
    memory = LiveMemory()
    with FakeTensorMode():
        weight = torch.empty(100, 100)
        memory.hold([weight])
        with memory:
            memory.part = "later"
            out = weight.t() @ weight
    assert memory.peaks == {"later": 40_000}
    assert out.shape == (100, 100)
