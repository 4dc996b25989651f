"""Progress counts rows as their batches are done, not only whole chunks."""

from __future__ import annotations

import pytest

from rectune.decoding.batching import Batches, chunks
from rectune.runtime.progress import Progress


def test_rows_count_as_their_batches_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(Progress, "to", lambda self, done: (counted.append(done), setattr(self, "done", done)))
    batches = Batches(1000)
    for _, chunk in chunks(5, "ranking", size=3, progress=False, batches=batches):
        list(batches.each([1] * len(chunk), lambda batch: batch, most=2))
    assert counted == [2, 3, 3, 5, 5]  # batches of 2 and 1, the chunk, a batch of 2, the chunk
