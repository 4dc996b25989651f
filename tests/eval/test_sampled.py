"""Sampled candidates: a protocol of its own, drawn once, kept in a file, named in every heading; with all items it is full ranking."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rectune.baselines.popularity import popularity
from rectune.baselines.scoring import place_among
from rectune.cli import main
from rectune.run.candidates import FILE, draw
from rectune.run.judged import HIDDEN, SAMPLED
from rectune.run.run import open_run
from tests.runs import results


@pytest.fixture
def run(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished[1], tmp_path / "run"))


def evaluated(run: Path, count: int, *more: str) -> None:
    assert main(["eval", str(run), "--eval.candidates", str(count), *more, "--traceback"]) == 0


def test_with_every_untouched_item_it_is_full_ranking_with_seen_items_hidden(run: Path) -> None:
    evaluated(run, 1000, "--rank.beams", "90")
    found = results(run)
    table, full = found[SAMPLED]["table"], found["protocols"][HIDDEN]
    assert list(table) == list(full)
    for row, entry in table.items():
        assert set(entry) == {"recall@1", "ndcg@1", "recall@5", "ndcg@5", "mrr@5"}
        for metric, value in entry.items():
            assert value == pytest.approx(full[row][metric], abs=1e-9), row
    assert found[SAMPLED]["tuned_against"]["best_baseline"] == found["tuned_against"][HIDDEN]["best_baseline"]


def test_what_is_drawn_is_kept_and_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(run, 20)
    said = capsys.readouterr().out
    heading = "1 + 20 sampled candidates, seed 0, not to be compared with full ranking"
    assert said.count(heading) == 1
    assert heading in (run / "report.html").read_text()
    found = results(run)
    assert found[SAMPLED]["heading"] == heading
    assert (
        found[SAMPLED]["table"]["popularity"]["recall@5"][0] > found["protocols"][HIDDEN]["popularity"]["recall@5"][0]
    )
    (file,) = (run / "stages").glob(f"candidates-*/{FILE}")
    kept = pl.read_parquet(file)
    split = open_run(run).split
    users = {int(row): int(user) for row, user in zip(split.test.row, split.test.user, strict=True)}
    ids = split.log.items["item_id"].to_numpy()
    for row, target, drawn in kept.iter_rows():
        touched = set(ids[split.log.item_codes[split.log.user_codes == users[row]]])
        assert target in touched
        assert len(set(drawn)) == 20
        assert not touched & set(drawn)
    assert draw(split, 20, 0)[0].tolist() == draw(split, 20, 0)[0].tolist() != draw(split, 20, 1)[0].tolist()


def test_without_the_key_there_is_none(finished: tuple[Path, Path]) -> None:
    assert SAMPLED not in results(finished[1])
    assert "sampled candidates" not in (finished[1] / "report.html").read_text()


def test_ties_count_against_the_target(finished: tuple[Path, Path]) -> None:
    split = open_run(finished[1]).split
    candidates = draw(split, 10, 0)
    alike = place_among(split, split.test, lambda rows: np.zeros((len(rows), split.log.n_items)), candidates)
    assert alike.place.tolist() == [10] * len(split.test)
    score = popularity(split).score
    found = place_among(split, split.test, score, candidates).place
    scores = score(split.test)
    for i, own in enumerate(candidates):
        assert found[i] == sum(scores[i, item] >= scores[i, own[0]] for item in own[1:])
    with pytest.raises(ValueError, match="NaN"):
        place_among(split, split.test, lambda rows: np.full((len(rows), split.log.n_items), np.nan), candidates)


@pytest.mark.parametrize("key", ["candidates", "shuffled_rows", "wording_rows", "examples", "ease_items"])
def test_counts_below_0_are_refused_before_anything_is_ranked(
    key: str, finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished[1] / "report.json").read_bytes()
    assert main(["eval", str(finished[1]), f"--eval.{key}", "-3"]) == 1
    error = capsys.readouterr().err
    assert f"`eval.{key}`" in error
    assert "got -3, but it must be" in error
    assert error.count("\n") == 1
    assert (finished[1] / "report.json").read_bytes() == before
