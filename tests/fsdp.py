"""Train recipes with weights cut over two processes on CPUs: python -m tests.fsdp RECIPE…, under a launcher.

Accelerate cuts weights only where it counts accelerators; here its state is told so of CPUs, and from there on all is as with GPUs: Accelerate's own
FSDP2 over gloo. A recipe whose name ends in `stopped` is stopped before its fifth step and gone on with; the last one is run to its report.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from rectune.cli import main
from rectune.methods.training import WholeCheckpoints
from tests.runs import Stopped, stopping, tuned

SAID = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}  # fmt: skip


def cut_on_cpus() -> None:
    """Let Accelerate choose FSDP2."""
    os.environ.update(SAID)
    plain = PartialState.__init__

    def told(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = told  # type: ignore[method-assign]


def stopped_at(step: int, recipe: str) -> None:
    """Train until before a step."""
    plain = WholeCheckpoints.training_step
    WholeCheckpoints.training_step = stopping(plain, step)  # type: ignore[method-assign]
    try:
        tuned(Path(recipe))
    except Stopped:
        return
    finally:
        WholeCheckpoints.training_step = plain  # type: ignore[method-assign]
    raise AssertionError("it ended before it was stopped")


if __name__ == "__main__":
    cut_on_cpus()
    for given in sys.argv[1:]:
        if given.removesuffix(".yaml").endswith("stopped"):
            stopped_at(4, given)
        tuned(Path(given))
    sys.exit(main(["train", sys.argv[-1], "--traceback"]))
