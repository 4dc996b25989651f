"""Progress: lines where there is no terminal, also while one step takes long; a bar where there is one."""

from __future__ import annotations

import io
import sys
import time

import pytest

from rectune.runtime import progress
from rectune.runtime.progress import Progress, clock, watched


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.03)


def test_half_a_minute_is_the_longest_silence() -> None:
    assert progress.EVERY <= 30


@pytest.mark.usefixtures("hurried")
def test_lines_come_while_one_step_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(4000, "training", "steps", at=100) as shown:
        time.sleep(0.1)
        shown.note = "5,000 tokens/s, loss 2.345"
        shown.to(1100)
        time.sleep(0.1)
    lines = capsys.readouterr().err.strip().split("\n")
    assert lines[0] == "training: 100 of 4,000 steps (2 %), 0:00:00 so far"
    assert lines[-2].startswith("training: 1,100 of 4,000 steps (27 %), ")
    assert ", 5,000 tokens/s, loss 2.345, 0:00:00 left" in lines[-2]
    assert lines[-1] == "training: 1,100 of 4,000 steps in 0:00:00"
    assert len(lines) >= 4
    time.sleep(0.1)
    assert capsys.readouterr().err == ""  # it is over


def test_the_rate_and_what_is_left_are_of_what_was_done_since_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    shown = Progress(1000, "ranking", "users", at=200, quiet=True)
    now[0] += 50
    shown.add(100)
    assert shown.line() == "ranking: 300 of 1,000 users (30 %), 2 users/s, 0:05:50 left"  # 700 at 2 a second


def test_short_and_quiet_works_say_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(watched([1, 2, 3], 6, "counting", "things", each=2)) == [1, 2, 3]
    monkeypatch.setattr(progress, "EVERY", 0.01)
    with Progress(3, "counting", "things", quiet=True):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_what_is_watched_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(Progress, "to", lambda self, done: (counted.append(done), setattr(self, "done", done)))
    list(watched(range(3), 5, "counting", "things", each=2))
    assert counted == [2, 4, 5]


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(10, "training", "steps", delay=0) as shown:
        shown.note = "9 tokens/s"
        shown.to(10)
    said = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "training: 100%" in said
    assert "9 tokens/s" in said


def test_a_clock_has_hours() -> None:
    assert clock(3723.9) == "1:02:03"
