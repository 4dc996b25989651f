"""Run `rectune` and kill the process (SIGKILL) the n-th time that a point is reached. For the tests of resuming.

    python -m tests.kill_at POINT N -- train RECIPE ...
    python -m tests.kill_at sweep 0 -- train RECIPE ...       # before every rename, each time going on
    python -m tests.kill_at POINT:N,POINT:N,… 0 -- train RECIPE ... --output_dir FOLDER   # one after the other, then to the end

Points: 'none'; 'save' inside a checkpoint save, after the weights and before the optimizer state; 'rank' inside a ranking; 'shard'
after a shard was written beside its place and before it was renamed; 'step' inside training; 'write' before a text is written.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
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


def warm() -> None:
    """Load the libraries, read what code results are told by, and use none of it, for processes that are forked from this one."""
    import datasets  # noqa: F401
    import evaluate  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import peft  # noqa: F401
    import polars  # noqa: F401
    import sentence_transformers  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import trl  # noqa: F401

    import rectune.commands
    import rectune.methods.sft
    import rectune.run.train
    from rectune.recipe.fingerprints import code_of

    code_of(rectune.commands, rectune.methods.sft, rectune.run.train)


def forked(arm: Callable[[], None], command: list[str]) -> int:
    """The status of a process that runs a command once `arm` was called in it."""
    from rectune.cli import main as rectune_main

    child = os.fork()
    if child == 0:
        arm()
        os._exit(rectune_main(command))
    return os.waitpid(child, 0)[1]


def sweep(command: list[str]) -> int:
    """Run a command again and again, each time killed right before a rename, until it ends by itself; says how often.

    Killed before the second one: whatever a stage is made of is so prepared twice, once for nothing, once for good. Where that
    finishes no stage, because several files are written in one, the next is killed one rename later.
    """
    warm()
    stages, before, at = Path(command[-1]) / "stages", -1, 2
    for killed in range(200):
        status = forked(partial(die_at, os, "replace", at), command)
        done = len([s for s in stages.glob("*") if s.suffix != ".partial"])
        before, at = done, 2 if done > before else at + 1
        if not os.WIFSIGNALED(status):
            print(f"killed {killed} times")
            return os.waitstatus_to_exitcode(status)
    return 99


def several(points: list[str], command: list[str]) -> int:
    """Run a command killed at each of several points, the output folder renamed to `FOLDER-POINT-N` in between, then once to the end. Says the names of
    the folders; waits for a line of input before it goes on after each."""
    warm()
    out = Path(command[-1])
    for point in points:
        name, times = point.split(":")
        status = forked(partial(arm, name, int(times)), [*command[:-1], str(out)])
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL or (out / "report.json").exists():
            print(f"{point}: it was not killed", file=sys.stderr)
            return 98
        print(out, flush=True)
        sys.stdin.readline()
        out = out.rename(f"{command[-1]}-{name}-{times}")
    return os.waitstatus_to_exitcode(forked(partial(arm, "none", 0), [*command[:-1], str(out)]))


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
    if point == "shard":
        die_at(Path, "replace", times)
    import rectune.decoding.batching
    import rectune.decoding.language_model

    rectune.decoding.batching.CHUNK = rectune.decoding.language_model.CHUNK = 16  # several shards even for a small test


def main() -> int:
    """Arm the point, then run the command."""
    point, times, _, *command = sys.argv[1:]
    if point == "sweep":
        return sweep(command)
    if ":" in point:
        return several(point.split(","), command)
    arm(point, int(times))
    from rectune.cli import main as rectune_main

    return rectune_main(command)


if __name__ == "__main__":
    sys.exit(main())
