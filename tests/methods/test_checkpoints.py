"""From which checkpoint a stopped training goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rectune.methods.training import COMPLETE, WholeCheckpoints, last_complete


def checkpoint(folder: Path, step: int, *, best: str | None, complete: bool = True) -> Path:
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_model_checkpoint": best}))
    if complete:
        (place / COMPLETE).touch()
    return place


def best_of(place: Path) -> object:
    return json.loads((place / "trainer_state.json").read_text())["best_model_checkpoint"]


def test_the_newest_whole_checkpoint_is_taken_and_half_written_ones_go(tmp_path: Path) -> None:
    checkpoint(tmp_path, 9, best=None)
    newest = checkpoint(tmp_path, 10, best=None)
    half = checkpoint(tmp_path, 11, best=None, complete=False)

    assert last_complete(tmp_path) == str(newest)
    assert not half.exists()
    assert best_of(newest) is None


def test_a_moved_run_still_finds_its_best_checkpoint(tmp_path: Path) -> None:
    was = tmp_path / "was" / "checkpoints"
    best = checkpoint(was, 5, best=None)
    newest = checkpoint(was, 10, best=str(best))
    before = newest.joinpath("trainer_state.json").read_bytes()

    assert last_complete(was) == str(newest)
    assert newest.joinpath("trainer_state.json").read_bytes() == before  # nothing to mend

    now = (tmp_path / "was").rename(tmp_path / "now") / "checkpoints"
    newest = Path(last_complete(now) or "")
    assert newest == now / "checkpoint-10"
    assert best_of(newest) == str(now / "checkpoint-5")
    assert json.loads((newest / "trainer_state.json").read_text())["global_step"] == 10


@pytest.mark.parametrize(
    "said", ["basic_ios::clear: iostream error", "[enforce fail at inline_container.cc:672] . unexpected pos 9 vs 8"]
)
def test_a_checkpoint_without_room_names_the_disk(said: str) -> None:
    class Full:
        args = SimpleNamespace(save_total_limit=2)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            raise RuntimeError(said)  # what torch says of a full disk

    class Trainer(WholeCheckpoints, Full):
        pass

    with pytest.raises(OSError, match=r"a checkpoint could not be written .*Is the disk full\?"):
        Trainer()._save_checkpoint(None, None)


@pytest.mark.parametrize(("wrote", "now"), [("2", 1), ("1", 2), ("3", 2)])
def test_another_number_of_processes_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrote: str, now: int
) -> None:
    checkpoints = tmp_path / "stages" / "train0-1" / "checkpoints"
    place = checkpoint(checkpoints, 4, best=None)
    (place / COMPLETE).write_text(wrote)
    monkeypatch.setenv("WORLD_SIZE", str(now))
    with pytest.raises(
        ValueError,
        match=f"begun with {wrote} process.* stopped at step 4; {now} cannot go on from there. Start it with {wrote}, .*train0-1",
    ):
        last_complete(checkpoints)
    (place / COMPLETE).write_text(str(now))
    monkeypatch.setattr("rectune.methods.training.wait", lambda: None)
    assert last_complete(checkpoints) == str(place)
