"""The GPU benchmark: it runs in small, goes on after a kill, is stopped by its clock, and its page is made of its figures."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import gpu, gpu_pack, gpu_page  # noqa: E402
from benchmarks.gpu import SECTIONS  # noqa: E402
from benchmarks.gpu_sections.bench import Bench  # noqa: E402

CARD = {"device": "cpu", "name": "cpu (test)", "matrix_tflops": 1.0, "copy_gb_s": 1.0, "torch": "2"}


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--quick", "--out", str(out), *more]


def figures(out: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((out / f"{name}.json").read_text()))


@pytest.mark.heavy
@pytest.mark.benchmark
def test_every_section_runs_in_small_on_a_cpu(tmp_path: Path) -> None:
    out = subprocess.run(command(tmp_path), capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stdout[-3000:] + "".join(f.read_text()[-1500:] for f in tmp_path.glob("*.log"))
    for name in SECTIONS:
        about = figures(tmp_path, name)
        assert (about["state"], about["failed"], about["left"]) == ("done", {}, [])
        assert about["quick"]
        assert about["card"]["matrix_tflops"] > 0
        assert about["card"]["copy_gb_s"] > 0
        assert about["rows"]
    assert figures(tmp_path, "qlora")["rows"]["audit"]["gradient_in"] > 0
    assert figures(tmp_path, "qlora")["rows"]["reload"]["in_4_bits"]
    assert figures(tmp_path, "search")["rows"]["tiny, float32, same lists"]["lists_equal"] == 4
    assert figures(tmp_path, "step")["rows"]["tiny, LoRA, ratio"]["same_losses"]
    again = subprocess.run(command(tmp_path), capture_output=True, text=True, check=False)
    assert again.stdout.count("done already") == len(SECTIONS)  # nothing is measured twice
    with pytest.raises(ValueError, match="say nothing of a card"):
        gpu_page.take_in([tmp_path], tmp_path / "kept")


@pytest.mark.heavy
@pytest.mark.benchmark
def test_a_killed_run_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    asked = command(tmp_path, "--only", "rates", "evaluation")
    child = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:  # the first row of the second section is measured
        if "prompts on the host:" in line:
            break
    child.kill()
    child.wait()
    before = figures(tmp_path, "evaluation")
    assert before["state"] == "running"
    time.sleep(1.5)  # the section's own process ends with the one that asked
    written = (tmp_path / "evaluation.json").stat().st_mtime_ns
    time.sleep(1.0)
    assert (tmp_path / "evaluation.json").stat().st_mtime_ns == written
    subprocess.run(asked, check=True, capture_output=True)
    after = figures(tmp_path, "evaluation")
    assert after["state"] == "done"
    kept = before["rows"]
    assert kept
    assert {name: after["rows"][name] for name in kept} == kept
    assert len(after["rows"]) == 5


HANGS = """
import sys, time
sys.path.insert(0, {root!r})
import benchmarks.gpu as gpu
import benchmarks.gpu_sections.rates as rates

def run(bench):
    bench.measure("one", lambda: {{"tflops": 1.0}})
    time.sleep(120)

rates.run, gpu.__file__ = run, __file__
raise SystemExit(gpu.main())
"""


@pytest.mark.heavy
@pytest.mark.benchmark
def test_a_section_that_hangs_is_stopped_by_its_clock_and_the_next_begins(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text(HANGS.format(root=str(ROOT)))
    asked = [
        sys.executable,
        str(tmp_path / "hangs.py"),
        *command(tmp_path, "--only", "rates", "search", "--seconds", "20")[2:],
    ]
    out = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=120)
    assert out.returncode == 1
    stopped = figures(tmp_path, "rates")
    assert stopped["state"] == "partly"
    assert stopped["rows"]["one"]["tflops"] == 1.0  # what was measured before is kept
    assert "limit of 20 seconds" in stopped["failed"]["the section"]
    assert stopped["seconds"] < 21
    assert figures(tmp_path, "search")["rows"]


def test_a_row_that_fails_is_written_down_and_the_next_is_measured(tmp_path: Path) -> None:
    bench = Bench("step", tmp_path / "step.json", card=CARD, seconds=60, quick=True, inputs=None)

    def breaks() -> dict[str, Any]:
        raise RuntimeError("no such kernel")

    bench.measure("one", breaks)
    bench.measure("two", lambda: {"tokens_per_s": 3.0})
    bench.measure("three", lambda: {"tokens_per_s": 3.0}, needs=600)
    assert bench.close() == "partly"
    about = figures(tmp_path, "step")
    assert about["failed"] == {"one": "RuntimeError: no such kernel"}
    assert about["rows"]["two"]["tokens_per_s"] == 3.0
    assert about["left"] == ["three"]
    later = Bench("step", tmp_path / "step.json", card=CARD, seconds=60, quick=True, inputs=None)
    later.measure("two", breaks)  # it is there
    later.measure("one", lambda: {"tokens_per_s": 1.0})
    later.measure("three", lambda: {"tokens_per_s": 1.0})
    assert later.close() == "done"


def test_figures_of_another_device_or_of_small_sizes_are_not_mixed(tmp_path: Path) -> None:
    bench = Bench("step", tmp_path / "step.json", card=CARD, seconds=60, quick=True, inputs=None)
    bench.measure("one", lambda: {"tokens_per_s": 1.0})
    bench.close()
    for card, quick in (({**CARD, "name": "another"}, True), ({**CARD, "torch": "3"}, True), (CARD, False)):
        with pytest.raises(ValueError, match="holds figures of"):
            Bench("step", tmp_path / "step.json", card=card, seconds=60, quick=quick, inputs=None)


def test_the_page_is_made_of_the_committed_figures(tmp_path: Path) -> None:
    assert gpu_page.PAGE.read_text() == gpu_page.page(gpu_page.MEASURED)
    empty = gpu_page.page(tmp_path)
    assert all(f"{words}: not measured" in empty for words in SECTIONS.values())


def test_the_page_shows_a_cards_own_figures(tmp_path: Path) -> None:
    card = {
        **CARD,
        "device": "cuda",
        "name": "NVIDIA Test",
        "memory_gb": 24,
        "driver": "1",
        "cuda": "13",
        "context_gb": 0.5,
    }
    about = {
        "section": "step", "state": "partly", "card": card, "quick": False, "seed": 0, "date": "2026-01-02", "commit": "abc", "versions": {"trl": "1"},
        "seconds": 3.0, "rows": {"Qwen3-0.6B, LoRA, rectune": {"tokens_per_s": 12345.6, "s_per_step": 0.5, "tokens_per_step": 10, "share_of_matrix_rate": 0.25, "peak_gb": 2.0}},
        "failed": {"x": "it broke"}, "left": ["y"], "reason": "",
    }  # fmt: skip
    (tmp_path / "step.json").write_text(json.dumps(about))
    file = gpu_page.take_in([tmp_path], tmp_path / "kept")
    assert file.name == "nvidia-test.json"
    text = gpu_page.page(tmp_path / "kept")
    assert "| Qwen3-0.6B, LoRA, rectune | 12,346 | 0.500 | 10 | 25.0 % | 2.00 | – | – |" in text
    assert "2026-01-02, commit abc" in text
    assert "Failed at that commit, and not measured since: x: it broke." in text
    assert "Not reached within the section's time: y." in text
    assert text.count("Not measured") == len(SECTIONS) - 1
    (tmp_path / "rates.json").write_text(json.dumps({**about, "section": "rates", "card": {**card, "name": "Other"}}))
    with pytest.raises(ValueError, match="several cards"):
        gpu_page.take_in([tmp_path], tmp_path / "kept")


def test_the_parts_of_a_pack_are_small_and_join_to_what_was_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_pack, "MOST", 2**21)
    monkeypatch.setattr(gpu_pack, "PIECE", 2**20 + 2**18)
    work = tmp_path / "work"
    (work / "inputs").mkdir(parents=True)
    large, small = bytes(range(256)) * 20_000, b"few"
    (work / "inputs" / "large").write_bytes(large)
    (work / "inputs" / "small").write_bytes(small)
    source = gpu_pack.pack_source(work / "rectune.tar.gz")
    parts = gpu_pack.write_parts([source, *(work / "inputs").iterdir()], work, tmp_path / "pack")
    assert len(parts) >= 3
    assert all(sum(f.stat().st_size for f in part.iterdir()) <= 2**21 for part in parts)
    unpack = [sys.executable, str(parts[0] / "unpack.py"), str(tmp_path / "pack"), str(tmp_path / "there")]
    away = parts[1].rename(tmp_path / "away")
    out = subprocess.run(unpack, capture_output=True, text=True, check=False)
    assert (out.returncode, out.stderr.strip()) == (1, "missing beside part-1: part-2")
    away.rename(parts[1])
    subprocess.run(unpack, check=True)
    assert (tmp_path / "there" / "inputs" / "large").read_bytes() == large
    assert (tmp_path / "there" / "inputs" / "small").read_bytes() == small
    assert (tmp_path / "there" / "rectune" / "benchmarks" / "gpu.py").exists()
    first = parts[0] / "000"
    first.write_bytes(b"x" + first.read_bytes()[1:])
    out = subprocess.run(unpack, capture_output=True, text=True, check=False)
    assert out.returncode == 1
    assert "is damaged: copy it again" in out.stderr


@pytest.mark.heavy
@pytest.mark.benchmark
def test_the_packed_command_runs(tmp_path: Path) -> None:
    import os

    work = tmp_path / "work"
    work.mkdir()
    gpu_pack.write_parts([gpu_pack.pack_source(work / "rectune.tar.gz")], work, tmp_path / "pack")
    asked = [
        "bash",
        str(tmp_path / "pack" / "part-1" / "run.sh"),
        "--device",
        "cpu",
        "--quick",
        "--only",
        "rates",
        "search",
    ]
    env = {
        **os.environ,
        "PYTHON": sys.executable,
        "WORK": str(tmp_path / "there"),
        "FIGURES": str(tmp_path / "figures"),
    }
    out = subprocess.run(asked, capture_output=True, text=True, check=False, env=env, cwd=tmp_path)
    assert out.returncode == 0, out.stderr[-2000:]
    assert figures(tmp_path / "figures", "search")["state"] == "done"
    assert len(figures(tmp_path / "figures", "search")["commit"].split()[0]) == 40


@pytest.mark.heavy
@pytest.mark.benchmark
def test_what_is_planned_for_a_capped_card_is_no_more_than_what_ran_there(tmp_path: Path) -> None:
    """By the committed figures; the plan of those days was too small and is not asked."""
    from benchmarks.gpu_sections.planner import LENGTH, Case

    compared = 0
    for file in gpu_page.MEASURED.glob("*.json"):
        about = json.loads(file.read_text()).get("planner", {"rows": {}})
        bench = SimpleNamespace(card={**about["card"], "device": "cpu"})
        cases: dict[str, Any] = {}
        for name, row in about["rows"].items():
            shape, adapter, _ = name.split(", ")
            if f"{shape}, {adapter}" not in cases:
                place = tmp_path / f"{len(cases)}"
                cases[f"{shape}, {adapter}"] = Case(shape, adapter == "QLoRA", bench, place, plan_for="cuda")  # type: ignore[arg-type]
            planned = cases[f"{shape}, {adapter}"].plan.largest_batch(round(row["cap_gb"] * 2**30), LENGTH, near=8)
            assert 0.8 * row["largest_rows"] <= planned < row["failed_rows"], (name, planned)
            compared += 1
    assert compared >= 9


def test_what_a_machine_has_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "have.txt"
    file.write_text("numpy==2.9.0\ntransformers==5.17.0\nPyYAML\nfsspec==2020.1.0\n")
    have, wanted = gpu_pack._have(file), gpu_pack.closure(["transformers", "datasets", "trl", "pyyaml"], "3.12")
    assert wanted["numpy"].met_by(have["numpy"])
    assert wanted["pyyaml"].met_by(have["pyyaml"])  # of an unknown version
    assert not wanted["transformers"].met_by(have["transformers"])  # rectune needs 5.20
    assert not wanted["fsspec"].met_by(have["fsspec"])  # datasets needs a later one
    assert not wanted["trl"].met_by(have.get("trl"))
    assert "torch" not in wanted


def test_figures_of_a_quick_look_or_of_another_commit_do_not_count_as_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench("rates", tmp_path / "rates.json", card=CARD, seconds=60, quick=True, inputs=None)
    bench.measure("one", lambda: {"tflops": 1.0})
    bench.close()
    asked = ["--device", "cpu", "--only", "rates", "--out", str(tmp_path)]
    assert gpu.main([*asked]) == 2
    assert "holds figures of quick True; this call is of quick False. Give another --out" in capsys.readouterr().err
    about = figures(tmp_path, "rates")
    (tmp_path / "rates.json").write_text(json.dumps({**about, "commit": "0" * 40}))
    assert gpu.main([*asked, "--quick"]) == 2
    assert f"commit {'0' * 40}" in capsys.readouterr().err
    (tmp_path / "rates.json").write_text(json.dumps(about))
    assert gpu.main([*asked, "--quick"]) == 0  # the same: nothing to do
    assert "rates: done already" in capsys.readouterr().out


def test_a_section_that_could_not_begin_begins_later(tmp_path: Path) -> None:
    args = gpu._parser().parse_args(["--out", str(tmp_path), "--quick", "--device", "cpu"])
    (tmp_path / "step.log").write_text("ModuleNotFoundError: No module named 'trl'\n")
    gpu._note_the_end(args, "step", 1)
    assert figures(tmp_path, "step")["failed"] == {
        "the section": "ended with code 1: ModuleNotFoundError: No module named 'trl'"
    }
    (tmp_path / "step.log").write_text("MemoryError\n")
    gpu._note_the_end(args, "step", -9)
    assert figures(tmp_path, "step")["failed"] == {"the section": "ended with code -9: MemoryError"}
    bench = Bench("step", tmp_path / "step.json", card=CARD, seconds=60, quick=True, inputs=None)
    bench.measure("one", lambda: {"tokens_per_s": 1.0})
    assert bench.close() == "done"
