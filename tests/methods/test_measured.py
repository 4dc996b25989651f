"""What a training took, beside its plan."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rectune.methods.measured import Meter, resident


def test_resident_memory_follows_what_is_held() -> None:
    before = resident()
    held = torch.ones(64 * 2**20 // 4)
    assert 60 * 2**20 < resident() - before < 90 * 2**20
    assert held[0] == 1


def test_tokens_and_the_largest_batch_are_counted_by_hand(tmp_path: Path) -> None:
    meter = Meter(tmp_path / "measured.json", torch.device("cpu"))
    arguments, state = SimpleNamespace(should_save=True), None
    meter.on_train_begin(arguments, state, None)
    for mask in ([[1, 1, 0], [1, 1, 1]], [[1, 1, 1, 1]]):
        meter.on_step_begin(arguments, state, None)
        meter.saw({"input_ids": torch.zeros(len(mask), len(mask[0])), "attention_mask": torch.tensor(mask)})
        meter.on_step_end(arguments, state, None)
    totals = meter.up_to_date()
    assert (totals.tokens, totals.steps, totals.largest_batch) == (9, 2, [2, 3])
    assert totals.peak >= resident("VmRSS") * 0.9
    meter.on_save(arguments, state, None)
    again = Meter(tmp_path / "measured.json", torch.device("cpu"))  # killed and continued
    again.on_train_begin(arguments, state, None)
    assert (again.totals.tokens, again.totals.steps, again.totals.attempts) == (9, 2, 2)


@pytest.mark.heavy
def test_the_report_shows_the_plan_beside_the_peak(quick_recipe: Path, tmp_path: Path) -> None:
    from rectune.cli import main

    assert main(["train", str(quick_recipe), "--traceback", "--eval.shuffled_rows", "0"]) == 0
    report: dict[str, Any] = json.loads((tmp_path / "run" / "report.json").read_text())
    took = report["measured"]["training, stage 0"]
    assert took["planned_gb"] == pytest.approx(took["peak_gb"], rel=0.2)
    assert took["planned_gb_of_its_batch"]["batch"] == [8, 128]
    assert took["steps_measured"] == 12
    assert took["tokens_per_second"] > 0
    assert "peak" not in json.dumps(report["results"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"planned {took['planned_gb']:.2f} GB, measured {took['peak_gb']:.2f} GB" in page
