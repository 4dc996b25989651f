"""Runs that are killed and continued, repeated elsewhere, or spread over two processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

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

    points = "step:3,save:2,step:2,save:1,rank:8"
    command = [sys.executable, "-m", "tests.kill_at", points, "0", "--", "train", str(recipe), "--output_dir", str(out)]
    stopped, said = list[Path](), list[str]()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for line in running.stdout:
            said.append(line)
            if not line.startswith(str(out)):  # what the run itself says
                continue
            stopped.append(Path(line.strip()))
            if len(stopped) == 3:
                (told,) = stopped[-1].glob(f"stages/train0-*/{SECONDS}")
                assert len(attempts_in(told)) == 3
                told.write_text(f"{told.read_text()}0 1000.000\n")  # as if the first one had taken so long
            running.stdin.write("\n")  # the folder is moved, and goes on where it is
            running.stdin.flush()
    assert running.returncode == 0, "".join(said)[-2000:]
    assert len(stopped) == 5
    out = tmp_path / "killed-rank-8"
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
