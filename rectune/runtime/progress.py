"""How far a long work is: a bar on a terminal, elsewhere (a file, a job's log) a line at least every half minute."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

EVERY = 30.0  # seconds between two lines
DELAY = 3.0  # seconds before a bar shows: short works show none
T = TypeVar("T")


class Progress:
    """Counts to `total` from `at` on; a context manager. Lines come from a thread, so they come while one step takes minutes, too."""

    def __init__(
        self, total: int, what: str, unit: str, *, at: int = 0, quiet: bool = False, delay: float = DELAY
    ) -> None:
        """`unit`: of what is counted, in the plural. `quiet`: nothing is shown."""
        self.total, self.what, self.unit, self.done = total, what, unit, at
        self.note = ""  # what else is known, such as a loss
        self._at, self._started = at, time.perf_counter()
        self._over = threading.Event()
        self._bar: Any = None
        self._told = 0
        if quiet:
            return
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=at, desc=what, unit=f" {unit}", delay=delay, dynamic_ncols=True)
        else:
            threading.Thread(target=self._tell, daemon=True).start()

    def to(self, done: int) -> None:
        """So much is done."""
        self.done = done
        if self._bar is not None:
            self._bar.set_postfix_str(self.note, refresh=False)
            self._bar.update(done - self._bar.n)

    def add(self, more: int) -> None:
        """So much more is done."""
        self.to(self.done + more)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._started

    def line(self) -> str:
        """How far it is, how fast it goes, and what is left: of the time so far, in proportion."""
        seconds, own = self.seconds, self.done - self._at
        parts = [f"{self.done:,} of {self.total:,} {self.unit} ({100 * self.done // max(self.total, 1)} %)"]
        if own > 0:
            parts.append(f"{own / seconds:.3g} {self.unit}/s")
        parts += [self.note] if self.note else []
        left = (self.total - self.done) * seconds / own if own > 0 else None
        parts.append(f"{clock(seconds)} so far" if left is None else f"{clock(left)} left")
        return f"{self.what}: {', '.join(parts)}"

    def close(self) -> None:
        """Nothing more is shown; where lines were, a last one says how long it took."""
        if self._over.is_set():
            return
        self._over.set()
        if self._bar is not None:
            self._bar.close()
        elif self._told:
            print(f"{self.what}: {self.done:,} of {self.total:,} {self.unit} in {clock(self.seconds)}", file=sys.stderr)

    def _tell(self) -> None:
        while not self._over.wait(EVERY):
            self._told += 1
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more
                print(self.line(), file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def watched(things: Iterable[T], total: int, what: str, unit: str, *, each: int = 1) -> Iterator[T]:
    """The same things, while it is shown how many of `total` have been worked on; each of them counts for `each`."""
    with Progress(total, what, unit) as progress:
        for thing in things:
            yield thing
            progress.to(min(progress.done + each, total))


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as in 1:02:03."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
