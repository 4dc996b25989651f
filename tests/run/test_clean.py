"""`rectune clean`: what the last report did not use goes, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rectune.cli import main
from tests.runs import stages


@pytest.fixture
def run(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    """A finished run of one's own."""
    shutil.copytree(finished[1], tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.heavy
def test_what_the_last_report_did_not_use_is_removed_and_nothing_else(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean", str(run)]) == 0  # other tests may have asked this run for more
    capsys.readouterr()
    (run / "stages" / "index-0123456789ab.partial").mkdir()
    (run / "stages" / "index-0123456789ab.partial" / "codes.npy").write_bytes(bytes(2**20))
    assert main(["clean", str(run), "--dry-run"]) == 0
    assert capsys.readouterr().out == "would remove index-0123456789ab.partial (1.0 MiB)\n1 stages, 1.0 MiB\n"
    whole = stages(run)
    assert main(["eval", str(run), "--rank.beams", "4", "--rank.k", "2", "--eval.k", "[1, 2]", "--traceback"]) == 0
    capsys.readouterr()
    assert main(["clean", str(run)]) == 0
    gone = set(whole) - set(stages(run))
    assert gone
    assert {name.partition("-")[0] for name in gone} <= {"rank", "index", "wordings", "prior", "plan0"}
    said = capsys.readouterr().out
    assert all(f"removed {name} (" in said for name in gone)
    kept = stages(run)
    assert main(["eval", str(run), "--rank.beams", "4", "--rank.k", "2", "--eval.k", "[1, 2]"]) == 0
    assert stages(run) == kept  # nothing that is used had gone
    assert main(["clean", str(run)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("nothing to remove")


def test_a_folder_that_is_no_finished_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["clean", str(tmp_path)]) == 1
    assert "is not a finished run folder" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.heavy
def test_a_run_whose_report_was_not_finished_is_left_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = json.loads((run / "run.json").read_text())
    assert about["reported"]
    about["reported"] = False  # as a second training that was killed while it ranked leaves it
    (run / "run.json").write_text(json.dumps(about))
    whole = stages(run)
    assert main(["clean", str(run)]) == 1
    assert "it is not known which stages its report needs" in capsys.readouterr().err
    assert stages(run) == whole
