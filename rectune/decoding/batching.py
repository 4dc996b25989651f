"""Work in batches that fit into memory, over chunks that are shared out to processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rectune.runtime.processes import rank, world_size
from rectune.runtime.progress import Progress

CHUNK = 1024  # rows of a shard: what a kill costs at most
SMALL_CHUNK = 256  # rows where nothing is kept: enough for several processes
T = TypeVar("T")


def chunks(
    rows: int, what: str, *, size: int, progress: bool, batches: Batches | None = None
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Chunks of `size` row numbers, themselves numbered, while it is shown how far they are; each process gets every world_size-th one.

    They are the same whatever the number of processes. `batches`: by which rows within a chunk are worked on, so that they count
    before it is done.
    """
    every = list(enumerate(np.split(np.arange(rows), np.arange(size, rows, size))))
    own = every[rank() :: world_size()]
    done = 0
    with Progress(sum(len(chunk) for _, chunk in own), what, "users", quiet=not progress or rank() > 0) as shown:
        for number, chunk in own:
            if batches is not None:
                batches.done = shown.add
            yield number, chunk
            done += len(chunk)
            shown.to(done)


class Batches:
    """Batches of at most `tokens` tokens, padding counted. When memory runs out, batches are halved from there on."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.done: Callable[[int], None] = lambda rows: None  # is told how many more are done

    def each(
        self, lengths: Sequence[int], work: Callable[[list[int]], T], *, most: int
    ) -> Iterator[tuple[list[int], T]]:
        """Yield batches of at most `most` numbers of `lengths`, like lengths together, and what `work` made of each.

        Raises MemoryError when a single one does not fit.
        """
        waiting = self._plan(range(len(lengths)), lengths, most)
        while waiting:
            batch = waiting.pop()
            done = self._attempt(work, batch, max(lengths[i] for i in batch))
            if done is None:
                waiting = self._plan([i for rest in [*waiting, batch] for i in rest], lengths, most)
            else:
                yield batch, done[0]
                self.done(len(batch))

    def _plan(self, numbers: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
        """Batches, the longest last."""
        batches: list[list[int]] = []
        longest = 0
        for number in sorted(numbers, key=lambda i: lengths[i], reverse=True):
            if not batches or len(batches[-1]) == most or (len(batches[-1]) + 1) * longest > self.tokens:
                batches.append([])
                longest = lengths[number]
            batches[-1].append(number)
        return batches[::-1]

    def _attempt(self, work: Callable[[list[int]], T], batch: list[int], longest: int) -> tuple[T] | None:
        """The work, or None when memory ran out; batches are then half as large as this one was."""
        try:
            return (work(batch),)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            if len(batch) == 1:
                raise MemoryError(
                    "out of memory for a single row: shorten prompts with `rank.max_length`, or lower `rank.beams`."
                ) from None
        self.shrink(len(batch) * longest)
        return None

    def shrink(self, tokens: int) -> None:
        """Go on with half of what did not fit."""
        self.tokens = max(1, min(self.tokens, tokens) // 2)
        warnings.warn(
            f"out of memory: ranking goes on with `rank.batch_tokens` {self.tokens}; lists stay the same.", stacklevel=3
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _out_of_memory(error: Exception) -> bool:
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, MemoryError) or should_reduce_batch_size(error)
