"""A process that has done its work leaves the others in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import with_processes

SCRIPT = """
import sys
import torch.distributed as dist
from rectune.cli import entry
from rectune.runtime.processes import gather

assert gather(1) == [1, 1]
assert dist.is_initialized()
sys.argv = ["rectune", "ls"]
try:
    entry()
except SystemExit as ended:
    assert not ended.code
assert not dist.is_initialized()
"""


def test_a_command_that_ends_well_has_left_the_process_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One that has not is killed by its own threads now and then, on a busy machine, after everything was written.
    (tmp_path / "ends_well.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "quickstart" in with_processes(2, "ends_well")
