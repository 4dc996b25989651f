"""The queue before the model: what goes together, what is refused, who leaves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from rectune.bundle.serving.batcher import Batcher, Full, Stopped


class Model:
    """Answers with doubled numbers; a first batch can be held back."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, batch: Sequence[Any]) -> list[Any]:
        self.batches.append(list(batch))
        assert self.go.wait(10)
        return [ValueError("odd") if one == 13 else one * 2 for one in batch]


def batcher(model: Any, *, tokens: int = 100, wait: float = 0.05, queue: int = 8) -> Batcher:
    return Batcher(model, tokens=tokens, wait=wait, queue=queue)


def test_requests_that_arrive_together_are_answered_together_within_the_budget() -> None:
    model = Model()
    made = batcher(model, tokens=30)

    async def run() -> list[int]:
        return list(await asyncio.gather(*(made.ask(n, 10) for n in range(5))))

    assert asyncio.run(run()) == [0, 2, 4, 6, 8]
    assert [len(batch) for batch in model.batches] == [3, 2]
    made.stop()


def test_a_request_above_the_budget_is_answered_alone_and_one_alone_waits_little() -> None:
    model = Model()
    made = batcher(model, tokens=30, wait=0.2)
    started = time.perf_counter()
    assert asyncio.run(made.ask(4, 1000)) == 8
    assert time.perf_counter() - started < 0.15  # the budget is full, so nobody is waited for
    assert asyncio.run(made.ask(5, 1)) == 10
    assert 0.15 < time.perf_counter() - started < 2
    made.stop()


def test_one_that_fails_fails_alone() -> None:
    made = batcher(Model())

    async def run() -> list[Any]:
        return list(await asyncio.gather(*(made.ask(n, 1) for n in (1, 13, 2)), return_exceptions=True))

    one, odd, two = asyncio.run(run())
    assert (one, two) == (2, 4)
    assert str(odd) == "odd"
    made.stop()


def test_a_model_that_breaks_is_told_to_all_and_the_next_batch_is_answered() -> None:
    broken = [True]

    def model(batch: Sequence[int]) -> list[int]:
        if broken.pop():
            broken.append(False)
            raise MemoryError("too large")
        broken.append(False)
        return list(batch)

    made = batcher(model)

    async def run() -> tuple[list[Any], int]:
        first = await asyncio.gather(made.ask(1, 1), made.ask(2, 1), return_exceptions=True)
        return list(first), await made.ask(3, 1)

    first, then = asyncio.run(run())
    assert [str(error) for error in first] == ["too large"] * 2
    assert then == 3
    made.stop()


def test_a_full_queue_refuses_and_who_leaves_frees_a_place() -> None:
    model = Model()
    model.go.clear()
    made = batcher(model, wait=0, queue=2)

    async def run() -> list[int]:
        first = asyncio.ensure_future(made.ask(1, 1))
        while not model.batches:  # the model has it
            await asyncio.sleep(0.001)
        second, third = (asyncio.ensure_future(made.ask(n, 1)) for n in (2, 3))
        await asyncio.sleep(0.01)
        with pytest.raises(Full):
            await made.ask(4, 1)
        assert len(made) == 2
        third.cancel()
        await asyncio.sleep(0.01)
        assert len(made) == 1
        fifth = asyncio.ensure_future(made.ask(5, 1))
        await asyncio.sleep(0.01)
        model.go.set()
        return [await first, await second, await fifth]

    assert asyncio.run(run()) == [2, 4, 10]
    assert 3 not in [one for batch in model.batches for one in batch]
    made.stop()


def test_stopping_answers_what_waits_and_takes_nothing_more() -> None:
    model = Model()
    model.go.clear()
    made = batcher(model, wait=0)

    async def run() -> list[int]:
        asked = [asyncio.ensure_future(made.ask(n, 1)) for n in (1, 2, 3)]
        await asyncio.sleep(0.02)
        stopping = asyncio.ensure_future(asyncio.to_thread(made.stop))
        await asyncio.sleep(0.02)
        with pytest.raises(Stopped):
            await made.ask(4, 1)
        model.go.set()
        await stopping
        return [await one for one in asked]

    assert asyncio.run(run()) == [2, 4, 6]
