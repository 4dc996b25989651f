"""Runs that are killed and continued, repeated elsewhere, or spread over two processes."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from rectune.decoding.ranking import Ranking
from rectune.run.training_box import SECONDS
from rectune.runtime.attempts import attempts_in
from tests.runs import forked, results, train, with_processes

KILLS = [("step", 3), ("save", 2), ("step", 2), ("save", 1), ("rank", 8)]


@pytest.mark.heavy
def test_the_same_recipe_gives_the_same_results_elsewhere(finished: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, folder = finished
    train(recipe, "--output_dir", str(tmp_path / "again"))
    assert results(tmp_path / "again") == results(folder)


@pytest.mark.heavy
def test_killed_anywhere_it_continues_to_the_same_results(finished: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, folder = finished
    out = tmp_path / "killed"

    train_it = ["train", str(recipe), "--output_dir"]
    for number, (point, times) in enumerate(KILLS):
        died = forked("-m", "tests.kill_at", point, str(times), "--", *train_it, str(out))
        assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
        assert not (out / "report.json").exists()
        out = out.rename(tmp_path / f"killed {number}")  # it goes on where it is
        if number == 2:
            (told,) = out.glob(f"stages/train0-*/{SECONDS}")
            assert len(attempts_in(told)) == 3
            told.write_text(f"{told.read_text()}0 1000.000\n")  # as if the first one had taken so long
    ended = forked("-m", "tests.kill_at", "none", "0", "--", *train_it, str(out))
    assert ended.returncode == 0, ended.stderr[-2000:]
    took = json.loads((out / "report.json").read_text())["measured"]["training, stage 0"]["seconds"]
    assert took > 1000
    assert results(out) == results(folder)
    assert not list(out.glob("stages/*.partial"))


@pytest.mark.heavy
def test_killed_before_every_rename_it_ends_in_the_same_results(finished: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, folder = finished
    out, done, at = tmp_path / "out", -1, 2
    command = ["--", "train", str(recipe), "--output_dir", str(out)]
    # Killed before the second rename: whatever a stage is made of is so prepared twice, once for nothing, once for good. Where that
    # finishes no stage, because several files are written in one, the next is killed one rename later.
    for killed in range(200):  # noqa: B007
        ended = forked("-m", "tests.kill_at", "rename", str(at), *command)
        if ended.returncode != -signal.SIGKILL:
            break
        before, done = done, len([stage for stage in out.glob("stages/*") if stage.suffix != ".partial"])
        at = 2 if done > before else at + 1
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert results(out) == results(folder)
    assert not list(out.glob("**/*.partial"))
    stages = len(list((folder / "stages").iterdir()))
    assert killed >= stages


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
