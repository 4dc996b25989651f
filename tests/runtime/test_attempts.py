"""Seconds of all attempts at something that may be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rectune.runtime.attempts import Attempts, attempts_in

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys, time
from pathlib import Path
from rectune.runtime.attempts import Attempts
with Attempts(Path(sys.argv[1]), every=0.02):
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_seconds_are_those_of_all_attempts_also_of_one_that_was_killed(tmp_path: Path) -> None:
    file = tmp_path / "seconds.txt"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    died = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False, env=environment)
    assert died.returncode == -9
    with Attempts(file) as first:
        time.sleep(0.1)
    with Attempts(file) as second:
        pass
    assert len(attempts_in(file)) == 3
    assert attempts_in(file)[0] > 0.2
    assert first.seconds > 0.3
    assert second.seconds == pytest.approx(sum(attempts_in(file)), abs=0.05)


def test_a_line_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "seconds.txt"
    assert attempts_in(file) == []
    file.write_text("0 5.000\n0 10.000\n1 3.000\n1 60")
    assert attempts_in(file) == [10.0, 3.0]
