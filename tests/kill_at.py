"""Run `rectune` and kill the process (SIGKILL) the n-th time that a point is reached. For the tests of resuming.

    python -m tests.kill_at POINT N -- train RECIPE ...

Points: 'none'; 'save' inside a checkpoint save, after the weights and before the optimizer state; 'rank' inside a ranking; 'shard'
after a shard was written beside its place and before it was renamed; 'rename' before a file or folder gets its name; 'step' inside
training; 'write' before a text is written.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any


def die_at(owner: Any, name: str, times: int) -> None:
    """Make the `times`-th call of owner.name the last thing this process does."""
    whole = getattr(owner, name)
    calls = [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **kwargs)

    setattr(owner, name, counted)


def arm(point: str, times: int) -> None:
    """Let this process be killed at a point."""
    if point in ("save", "step"):
        from transformers import Trainer

        die_at(Trainer, "_save_optimizer_and_scheduler" if point == "save" else "training_step", times)
    if point == "rank":
        from rectune.decoding.engine import Engine

        die_at(Engine, "search", times)
    if point == "write":
        die_at(Path, "write_text", times)
    if point == "rename":
        die_at(os, "replace", times)
        return
    if point == "shard":
        die_at(Path, "replace", times)
    import rectune.decoding.batching
    import rectune.decoding.language_model

    rectune.decoding.batching.CHUNK = rectune.decoding.language_model.CHUNK = 16  # several shards even for a small test


def main() -> int:
    """Arm the point, then run the command."""
    point, times, _, *command = sys.argv[1:]
    arm(point, int(times))
    from rectune.cli import main as rectune_main

    return rectune_main(command)


if __name__ == "__main__":
    sys.exit(main())
