"""Forks processes that have the libraries loaded already, or `transformers` alone; started by `tests.runs.forked`, once in a process of tests.

A request is a line of JSON on standard input: `words` as they follow `python` (-c CODE … or -m MODULE …), `folder` to work in, `out` and `err` for what is said,
and in `processes` one environment for each. The answer is a line with their statuses.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

LONGEST = 300  # seconds; the longest take one


def warm() -> None:
    """Load the libraries, read what code results are told by and what names there are, and use none of it: what has threads cannot be forked."""
    import datasets  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import peft  # noqa: F401
    import polars  # noqa: F401
    import sentence_transformers  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import trl  # noqa: F401

    import rectune.commands
    import rectune.methods.grpo
    import rectune.methods.s_dpo
    import rectune.run.train
    from rectune.recipe.fingerprints import code_of
    from rectune.recipe.homes import HOMES, offered

    code_of(rectune.commands, rectune.methods.grpo, rectune.methods.s_dpo, rectune.run.train)
    for home in HOMES.values():
        offered(home)


def become(asked: dict[str, Any], environment: dict[str, str]) -> int:
    """Be the process that was asked for; returns its status."""
    for descriptor, file in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(asked["folder"])
    sys.path[0] = asked["folder"]
    kind, what, *rest = asked["words"]
    sys.argv = [what if kind == "-m" else kind, *rest]
    if kind == "-m":
        return status_of(lambda: runpy.run_module(what, run_name="__main__", alter_sys=True))
    return status_of(lambda: exec(compile(what, "<string>", "exec"), {"__name__": "__main__"}))


def status_of(work: Callable[[], object]) -> int:
    """What a program ends with, as Python has it."""
    try:
        work()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def fork(asked: dict[str, Any]) -> list[int]:
    """Start the processes and wait for them; where one fails, the others are ended, and all that run too long. Returns their statuses, -n for
    one ended by signal n."""
    running = dict[int, int]()
    for number, environment in enumerate(asked["processes"]):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = become(asked, environment)
                atexit._run_exitfuncs()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        running[child] = number
    statuses = [0] * len(running)

    def end(*_: object) -> None:
        for child in running:
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.alarm(LONGEST)
    while running:
        child, status = os.wait()
        statuses[running.pop(child)] = os.waitstatus_to_exitcode(status)
        if status != 0:
            end()
    signal.alarm(0)
    return statuses


if __name__ == "__main__":
    if sys.argv[1] == "transformers":
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer  # noqa: F401
    else:
        warm()
    for line in sys.stdin:
        print(json.dumps(fork(json.loads(line))), flush=True)
