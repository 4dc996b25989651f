"""Requests that arrive together are answered together: a bounded queue, a few milliseconds of waiting, one thread that asks the model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class Full(Exception):
    """The queue has no place."""


class Stopped(Exception):
    """Nothing is taken any more."""


@dataclass
class Waiting:
    """A request in the queue. `tokens`: about how many its prompt takes."""

    asked: Any
    tokens: int
    done: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop

    def finish(self, result: Any, error: BaseException | None = None) -> None:
        """Hand the answer to whoever waits for it."""

        def put() -> None:
            if self.done.done():
                return
            if error is not None:
                self.done.set_exception(error)
            else:
                self.done.set_result(result)

        self.loop.call_soon_threadsafe(put)


class Batcher:
    """Answers requests in batches of at most `tokens` tokens. `answer`: requests -> their results, each a result or an exception.

    The first of a batch waits at most `wait` seconds for others; at most `queue` wait at a time. `told(size, seconds)` is called after each batch.
    """

    def __init__(
        self, answer: Callable[[Sequence[Any]], Sequence[Any]], *, tokens: int, wait: float, queue: int,
        told: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:  # fmt: skip
        self._answer, self._tokens, self._wait, self._most, self._told = answer, tokens, wait, queue, told
        self._queue: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._queue)

    async def ask(self, asked: Any, tokens: int) -> Any:
        """The result of a request. Raises Full where there is no place, Stopped after `stop`; a caller that is cancelled frees its place."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(asked, tokens, loop.create_future(), loop)
        with self._changed:
            if self._stopping:
                raise Stopped
            if len(self._queue) >= self._most:
                raise Full
            self._queue.append(waiting)
            self._changed.notify()
        try:
            return await waiting.done
        except asyncio.CancelledError:
            with self._changed:
                if waiting in self._queue:
                    self._queue.remove(waiting)
            raise

    def stop(self) -> None:
        """Take nothing more, answer what waits, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            started = time.perf_counter()
            try:
                results: Sequence[Any] = self._answer([waiting.asked for waiting in batch])
            except BaseException as error:  # whatever it is, those who wait must hear of it
                results = [error] * len(batch)
            for waiting, result in zip(batch, results, strict=True):
                failed = isinstance(result, BaseException)
                waiting.finish(None if failed else result, result if failed else None)
            self._told(len(batch), time.perf_counter() - started)

    def _next(self) -> list[Waiting]:
        """The next batch; [] once there is nothing more to come."""
        with self._changed:
            while True:
                while not self._queue and not self._stopping:
                    self._changed.wait()
                self._gather()
                batch: list[Waiting] = []
                while self._queue and (
                    not batch or sum(w.tokens for w in batch) + self._queue[0].tokens <= self._tokens
                ):
                    batch.append(self._queue.popleft())
                if batch or self._stopping:
                    return batch

    def _gather(self) -> None:
        """Wait for more, for a moment."""
        until = time.monotonic() + self._wait
        while self._queue and not self._stopping and self._held() < self._tokens:
            rest = until - time.monotonic()
            if rest <= 0 or not self._changed.wait(rest):
                return

    def _held(self) -> int:
        return sum(waiting.tokens for waiting in self._queue)
