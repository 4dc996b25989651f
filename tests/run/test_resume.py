"""Runs that are killed and continued, repeated elsewhere, or spread over two processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectune.decoding.ranking import Ranking
from rectune.run.training_box import SECONDS
from rectune.runtime.attempts import attempts_in
from tests.runs import results, train, with_processes

ROOT = Path(__file__).parents[2]


@pytest.mark.heavy
def test_the_same_recipe_gives_the_same_results_elsewhere(finished: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, folder = finished
    train(recipe, "--output_dir", str(tmp_path / "again"))
    assert results(tmp_path / "again") == results(folder)


@pytest.mark.heavy
def test_killed_anywhere_it_continues_to_the_same_results(finished: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, folder = finished
    out = tmp_path / "killed"

    def run(point: str, times: int) -> Any:
        """The run, killed at a point, in the folder `out`."""
        command = ["--", "train", str(recipe), "--output_dir", str(out)]
        whole = [sys.executable, "-m", "tests.kill_at", point, str(times), *command]
        return subprocess.run(whole, capture_output=True, text=True, check=False, cwd=ROOT)

    for point, times in (
        ("step", 3),
        ("save", 2),
        ("step", 2),
        ("save", 1),
        ("rank", 8),
    ):
        died = run(point, times)
        assert died.returncode == -9, (point, died.stderr[-2000:])
        assert not (out / "report.json").exists()
        if (point, times) == ("step", 2):
            (told,) = out.glob(f"stages/train0-*/{SECONDS}")
            assert len(attempts_in(told)) == 3
            told.write_text(f"{told.read_text()}0 1000.000\n")  # as if the first one had taken so long
        out = out.rename(tmp_path / f"moved-{point}-{times}")  # a folder that was moved goes on where it is
    whole = run("none", 0)
    assert whole.returncode == 0, whole.stderr[-2000:]
    took = json.loads((out / "report.json").read_text())["measured"]["training, stage 0"]["seconds"]
    assert took > 1000
    assert results(out) == results(folder)
    assert not list(out.glob("stages/*.partial"))


@pytest.mark.heavy
def test_killed_before_every_rename_it_ends_in_the_same_results(finished: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, folder = finished
    command = [
        sys.executable,
        "-m",
        "tests.kill_at",
        "sweep",
        "0",
        "--",
        "train",
        str(recipe),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    out = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert out.returncode == 0, out.stderr[-3000:]
    assert results(tmp_path / "out") == results(folder)
    assert not list((tmp_path / "out").glob("**/*.partial"))
    stages = len(list((folder / "stages").iterdir()))
    assert int(out.stdout.rpartition("killed ")[2].split()[0]) >= stages


@pytest.mark.heavy
def test_two_processes_give_the_same_lists_as_one(finished: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = finished
    both = tmp_path / "both"
    shutil.copytree(folder, both)
    for stage in both.glob("stages/rank-*"):
        shutil.rmtree(stage)
    with_processes(2, "tests.kill_at", "none", "0", "--", "eval", str(both))
    found = sorted(both.glob("stages/rank-*"))
    assert len(found) == 5
    for stage in found:
        one, two = (Ranking.load(place / "stages" / stage.name / "ranking.parquet") for place in (folder, both))
        assert np.array_equal(one.row, two.row)
        assert np.array_equal(one.items, two.items)
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
