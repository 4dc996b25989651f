"""What reading a log takes, as the plan says it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import yaml
from rectune.data_builders.reader import rows_in

from rectune.cli import main
from rectune.forecast.reading import A_TEXT, AN_EVENT, LIBRARIES
from tests.data_builders.test_pieces import made


def test_rows_are_counted_in_parquet_and_told_from_the_size_of_text(tmp_path: Path) -> None:
    rows = pl.concat([made(40_000)] * 3)
    rows.write_parquet(tmp_path / "a.parquet")
    rows.write_csv(tmp_path / "b.csv")
    made(100).write_csv(tmp_path / "c.csv")
    assert rows_in([tmp_path / "a.parquet"]) == (120_000, True)
    assert rows_in([tmp_path / "c.csv"]) == (100, True)
    told = rows_in([tmp_path / "b.csv"])
    assert told is not None
    assert told == (pytest.approx(120_000, rel=0.02), False)
    assert rows_in([tmp_path / "a.parquet", tmp_path / "c.csv"]) == (120_100, True)
    assert rows_in([tmp_path / "x.jsonl"]) is None


@pytest.mark.heavy
def test_the_plan_states_the_peak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.conftest import QUICK

    made(5000).write_parquet(tmp_path / "log.parquet")
    settings = yaml.safe_load(QUICK)
    settings["data"] = {"call": "table", "path": str(tmp_path / "log.parquet"), "time": "time"}
    settings |= {
        "index": {"call": "atomic"},
        "vectors": None,
        "output_dir": str(tmp_path / "run"),
        "eval": {"oracle": None},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings))
    assert main(["plan", str(tmp_path / "r.yaml")]) == 0
    peak = (LIBRARIES + 5000 * (AN_EVENT + A_TEXT)) / 2**30
    assert f"the log: 5,000 rows, read with about {peak:.2f} GB of memory at its peak" in capsys.readouterr().out
    assert main(["plan", str(tmp_path / "r.yaml"), "--data.path", str(tmp_path / "none.parquet")]) == 0
    assert "the log:" not in capsys.readouterr().out
