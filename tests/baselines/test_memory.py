"""Baselines within a stated memory: the same figures, however small it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import linalg

from rectune.baselines import inverse, item_knn, prior
from rectune.baselines.ease import EaseScorer, ease, ease_with_markov
from rectune.baselines.inverse import negative_inverse
from rectune.baselines.markov import markov
from rectune.baselines.popularity import popularity
from rectune.baselines.repeat_last import repeat_last
from rectune.baselines.sasrec_settings import SasRecSettings
from rectune.baselines.sasrec_training import train_sasrec
from rectune.baselines.scoring import Baseline, list_rows, train_matrix
from rectune.log.split import Split
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.runtime import room as rooms
from rectune.runtime.room import Matrix, Room

ROOT = Path(__file__).parents[2]
MAKE: dict[str, Callable[[Split, Room], Baseline]] = {
    "popularity": lambda split, room: popularity(split),
    "repeat last": lambda split, room: repeat_last(split),
    "Markov": lambda split, room: markov(split),
    "item-KNN": lambda split, room: item_knn.item_knn(split, room=room),
    "EASE": lambda split, room: ease(split, room=room),
    "EASE + Markov": lambda split, room: ease_with_markov(split, ease(split, room=room), room=room),
}


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Room:
    """The least room for a small shop: blocks of 64 rows, no matrix in memory, a few items at a time."""
    monkeypatch.setattr(rooms, "MATRIX", 0.0)
    monkeypatch.setattr(item_knn, "PAIR", 10**5)
    return Room(0.0021, tmp_path)


@pytest.mark.parametrize("name", MAKE)
def test_figures_do_not_depend_on_the_room(name: str, small_shop: Any, request: pytest.FixtureRequest) -> None:
    split = leave_one_out(small_shop)
    wide = MAKE[name](split, Room())
    lists = list_rows(split, split.test, wide.score, width=20)
    tight = request.getfixturevalue("tight")
    assert tight.rows(split.log.n_items) == 64 < len(split.test)
    narrow = MAKE[name](split, tight)
    if isinstance(narrow.score, EaseScorer):
        assert not narrow.score.weights.of(narrow.score.penalty).in_memory
    assert narrow.settings == wide.settings
    assert np.array_equal(narrow.score(split.test), wide.score(split.test))
    for a, b in zip(lists, list_rows(split, split.test, narrow.score, width=20, room=tight), strict=True):
        assert np.array_equal(a.place, b.place)
        assert np.array_equal(a.items, b.items)


def test_a_prior_does_not_depend_on_the_room(small_shop: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    split = leave_one_out(small_shop)
    model = train_sasrec(split, SasRecSettings(epochs=1), seed=0)
    found = {}
    for memory in (2.0, 0.0021):
        if memory < 1:
            request.getfixturevalue("tight")
        folder = tmp_path / str(memory)
        folder.mkdir()
        prior.fit(split, folder, sasrec=model, memory=memory)
        found[memory] = ((folder / "prior.json").read_text(), prior.load(folder)(split, split.test))
    assert found[2.0][0] == found[0.0021][0]
    assert np.array_equal(found[2.0][1], found[0.0021][1])


@pytest.mark.parametrize("share", [0.625, 0.0])
def test_an_inverse_by_stripes_is_the_inverse(share: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rooms, "MATRIX", share)
    monkeypatch.setattr(inverse, "STRIPE", 5)
    x = np.random.default_rng(0).random((40, 13))
    gram = x.T @ x + np.eye(13)
    matrix = Matrix(13, 13, np.float64, Room(folder=tmp_path))
    block = np.arange(13) // 5
    matrix.window(0, 13)[:] = np.where(block[None] > block[:, None], 1000.0, gram)  # above the blocks nothing is read
    negative_inverse(matrix, said="test")
    np.testing.assert_allclose(matrix.rows(np.arange(13)), -linalg.inv(gram), rtol=1e-10, atol=1e-12)


def test_the_nearest_items_by_hand(small_shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = train_matrix(leave_one_out(small_shop))
    both = (matrix.T @ matrix).toarray()
    norm = np.sqrt(np.diag(both))
    similar = both / (norm[:, None] * norm[None, :] + 20)
    np.fill_diagonal(similar, 0)
    expected = np.zeros_like(similar)
    for row, values in enumerate(similar):
        best = np.argsort(-values, kind="stable")[:7]
        expected[row, best] = values[best]
    for bytes_of_a_pair in (100, 10**6):
        monkeypatch.setattr(item_knn, "PAIR", bytes_of_a_pair)
        found = item_knn.nearest_items(matrix, 20.0, 7, Room(0.1)).toarray()
        np.testing.assert_allclose(found, expected)


def test_a_row_that_saw_part_of_the_catalogue_says_so(small_shop: Any) -> None:
    split = leave_one_out(small_shop)
    row = ease(split, most_items=50)
    assert row.name == "EASE, recency-weighted, 50 of 120 items"
    assert ease_with_markov(split, row).name == "EASE + Markov, 50 of 120 items"
    assert item_knn.item_knn(split, most_items=50).name == "item-KNN, 50 of 120 items"
    assert ease(split, most_items=120).name == "EASE, recency-weighted"


@pytest.mark.benchmark
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of a process are measured by /proc")
@pytest.mark.parametrize(
    "name", ["Markov", "item-KNN", "SASRec, scoring", "EASE and EASE + Markov", "prior", "intervals"]
)
def test_the_peak_stays_within_the_bound(name: str) -> None:
    # EASE's weights of 4,000 items take 0.12 GB, and lie in a file; scores of 6,000 rows take 0.18 GB, and come in blocks
    size = ["--users", "6000", "--items", "4000", "--memory", "0.12", "--only", name]
    command = [sys.executable, "-m", "benchmarks.baselines", "--one", *size]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    assert json.loads(out.stdout.splitlines()[-1])["peak_gb"] < 0.12
