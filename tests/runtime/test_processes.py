"""A process that has done its work leaves the others in order."""

from __future__ import annotations

from pathlib import Path

from tests.runs import forked

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


def test_a_command_that_ends_well_has_left_the_process_group(tmp_path: Path) -> None:
    # One that has not is killed by its own threads now and then, on a busy machine, after everything was written.
    (tmp_path / "ends_well.py").write_text(SCRIPT)
    out = forked("-m", "ends_well", processes=2, folder=tmp_path)
    assert out.returncode == 0, out.stderr
    assert "quickstart" in out.stdout
