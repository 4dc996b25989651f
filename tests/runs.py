"""What the tests of whole runs share."""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch

from rectune.cli import main
from rectune.recipe.load import load_recipe
from rectune.run.run import open_recipe

ROOT = Path(__file__).parents[1]


def results(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())["results"]


def train(recipe: Path, *more: str) -> None:
    assert main(["train", str(recipe), "--traceback", *more]) == 0


def free_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@cache
def _warm(libraries: str) -> subprocess.Popen[str]:
    """The process that forks others."""
    started = subprocess.Popen([sys.executable, "-m", "tests.warm", libraries], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)  # fmt: skip
    atexit.register(started.kill)
    return started


def forked(
    *words: str, processes: int = 1, folder: Path = ROOT, libraries: str = "all"
) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS…` in a process that has `libraries` loaded already (`all`, or `transformers` alone), with one thread; in several
    as a launcher would. What libraries read of the environment while they are imported is this process's.
    """
    plain = {**os.environ, "OMP_NUM_THREADS": "1"}
    launched = {
        "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    each = [plain | launched | {"RANK": str(n), "LOCAL_RANK": str(n)} for n in range(processes)]
    with TemporaryDirectory() as place:
        said = [str(Path(place) / name) for name in ("out", "err")]
        asked = {
            "words": words, "folder": str(folder), "out": said[0], "err": said[1], "processes": [plain] if processes == 1 else each,
        }  # fmt: skip
        streams = _warm(libraries)
        assert streams.stdin is not None
        assert streams.stdout is not None
        print(json.dumps(asked), file=streams.stdin, flush=True)
        statuses = json.loads(streams.stdout.readline())
        failed = next((status for status in statuses if status), 0)
        return subprocess.CompletedProcess(words, failed, *(Path(file).read_text() for file in said))


def tuned(recipe: Path, output_dir: str | None = None) -> Path:
    """Train the stages of a recipe, and rank nothing. Returns the run folder."""
    run = open_recipe(load_recipe(recipe, [] if output_dir is None else [("output_dir", output_dir)]))
    assert run.tuned.folder.exists()
    return run.folder.path


def with_processes(number: int, *words: str) -> str:
    """Run `python -m WORDS…` in so many processes to its good end; returns what it printed."""
    out = forked("-m", *words, processes=number)
    assert out.returncode == 0, out.stderr[-20_000:]
    return out.stdout


class Stopped(BaseException):
    """Ends a training where nothing expects it."""


def stopping(plain: Any, step: int) -> Any:
    """A `training_step` that raises `Stopped` before so many further steps."""
    steps: list[int] = []

    def one(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(steps) == step:
            raise Stopped
        steps.append(1)
        return plain(self, *args, **kwargs)

    return one


def killed_at_a_step(
    recipe: Path, trainer: Any, place: Path, monkeypatch: pytest.MonkeyPatch, *, step: int = 5
) -> Path:
    """Train a recipe whole, and once more killed before so many further steps of `trainer` and gone on with; both leave the same bytes.
    Returns the folder of the second stage."""
    train(recipe, "--output_dir", str(place / "whole"))

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "training_step", stopping(trainer.training_step, step))
        with pytest.raises(Stopped):
            train(recipe, "--output_dir", str(place / "killed"))
    train(recipe, "--output_dir", str(place / "killed"))
    weights = [
        sorted((place / run / "stages").glob("train1-*/model/*model.safetensors")) for run in ("whole", "killed")
    ]
    assert weights[0]
    assert [file.read_bytes() for file in weights[0]] == [file.read_bytes() for file in weights[1]]
    assert results(place / "whole")["protocols"] == results(place / "killed")["protocols"]
    return weights[0][0].parents[1]


def same_gradients(model: Any, other: Any, *, rtol: float) -> None:
    """Every gradient of a model is that of the other, and more than ten are some."""
    theirs = {name: p.grad for name, p in other.named_parameters()}
    compared = 0
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[name], rtol=rtol, atol=1e-5)
            compared += int(parameter.grad.abs().sum() > 0)
    assert compared > 10


def bandit_log() -> None:
    """In the working folder a log of 100 users: after item n comes item n + 7 (mod 50)."""
    lines, rng = ["user,item,time"], np.random.default_rng(0)
    for user in range(100):
        item = int(rng.integers(50))
        for step in range(6):
            lines.append(f"u{user},i{item},{step}")
            item = (item + 7) % 50
    Path("log.csv").write_text("\n".join(lines) + "\n")
    Path("items.csv").write_text("item,title\n" + "".join(f"i{n},Thing {n}\n" for n in range(50)))


def stages(folder: Path) -> dict[str, float]:
    return {stage.name: stage.stat().st_mtime_ns for stage in (folder / "stages").iterdir()}
