"""The seconds of all attempts at something that may be killed in the middle."""

from __future__ import annotations

import threading
import time
from pathlib import Path


class Attempts:
    """Counts seconds, those of earlier attempts included, as long as it is entered. What an attempt took is added to `file` every
    `every` seconds, a line of its number and its seconds, so that a kill loses no more."""

    def __init__(self, file: Path, *, every: float = 1.0) -> None:
        self._file, self._every = file, every
        self._earlier = attempts_in(file)
        self._over, self._thread = threading.Event(), threading.Thread(target=self._tell, daemon=True)
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of all attempts until now."""
        return sum(self._earlier) + time.perf_counter() - self._started

    def __enter__(self) -> Attempts:
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._add()

    def _tell(self) -> None:
        self._add()
        while not self._over.wait(self._every):
            self._add()

    def _add(self) -> None:
        with self._file.open("a") as file:
            file.write(f"{len(self._earlier)} {time.perf_counter() - self._started:.3f}\n")


def attempts_in(file: Path) -> list[float]:
    """Seconds of each attempt that a file tells of, as far as they were written; a line that a kill cut short is passed over."""
    if not file.exists():
        return []
    found: dict[int, float] = {}
    for line in file.read_text().split("\n")[:-1]:  # what follows the last newline is not whole
        number, _, seconds = line.partition(" ")
        if number.isdigit():
            found[int(number)] = float(seconds)
    return list(found.values())
