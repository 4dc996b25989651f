"""Run `rectune` and kill the process (SIGKILL) the n-th time that a point is reached. For the tests of resuming.

    python -m tests.kill_at POINT N -- train RECIPE ...
    python -m tests.kill_at sweep 0 -- train RECIPE ...       # before every rename, each time going on

Points: 'none'; 'save' inside a checkpoint save, after the weights and before the optimizer state; 'rank' inside a ranking; 'shard'
after a shard was written beside its place and before it was renamed; 'step' inside training; 'write' before a text is written.
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


def sweep(command: list[str]) -> int:
    """Run a command again and again, each time killed right before a rename, until it ends by itself; says how often.

    Killed before the second one: whatever a stage is made of is so prepared twice, once for nothing, once for good. Where that
    finishes no stage, because several files are written in one, the next is killed one rename later.

    The processes are forked from this one, which has loaded the libraries and used none of them.
    """
    import datasets  # noqa: F401
    import polars  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import trl  # noqa: F401

    import rectune.commands
    import rectune.methods.sft
    import rectune.run.train  # noqa: F401
    from rectune.cli import main as rectune_main

    stages, before, at = Path(command[-1]) / "stages", -1, 2
    for killed in range(200):
        child = os.fork()
        if child == 0:
            die_at(os, "replace", at)
            os._exit(rectune_main(command))
        _, status = os.waitpid(child, 0)
        done = len([s for s in stages.glob("*") if s.suffix != ".partial"])
        before, at = done, 2 if done > before else at + 1
        if not os.WIFSIGNALED(status):
            print(f"killed {killed} times")
            return os.waitstatus_to_exitcode(status)
    return 99


def main() -> int:
    """Arm the point, then run the command."""
    point, times, _, *command = sys.argv[1:]
    if point == "sweep":
        return sweep(command)
    if point in ("save", "step"):
        from transformers import Trainer

        die_at(Trainer, "_save_optimizer_and_scheduler" if point == "save" else "training_step", int(times))
    if point == "rank":
        from rectune.decoding.engine import Engine

        die_at(Engine, "search", int(times))
    if point == "write":
        die_at(Path, "write_text", int(times))
    if point == "shard":
        die_at(Path, "replace", int(times))
    import rectune.decoding.batching
    import rectune.decoding.language_model

    rectune.decoding.batching.CHUNK = rectune.decoding.language_model.CHUNK = 16  # several shards even for a small test
    from rectune.cli import main as rectune_main

    return rectune_main(command)


if __name__ == "__main__":
    sys.exit(main())
