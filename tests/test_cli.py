"""The command line: one clear line for what is wrong, a non-zero exit code, nothing half-written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from rectune.cli import main, parse_overrides
from tests.runs import forked


def fails(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """Run a command that must fail; returns its one line."""
    capsys.readouterr()
    assert main(list(command)) == 1
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_overrides_are_read_in_both_spellings() -> None:
    assert parse_overrides(["--data.path", "x", "--seed=3", "--eval.k", "[1, 2]"]) == [
        ("data.path", "x"),
        ("seed", "3"),
        ("eval.k", "[1, 2]"),
    ]
    for wrong in (["stray"], ["--seed"], ["-x", "1"]):
        with pytest.raises(ValueError, match=r"was not expected|needs a value"):
            parse_overrides(wrong)


def test_ls_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    out = capsys.readouterr().out
    assert "quickstart" in out
    assert "next-item.jinja" in out
    assert main(["show", "quickstart", "--seed", "5"]) == 0
    assert "seed: 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--stages.0.learning_rat", "1"], "`Config` has no such key. Did you mean `learning_rate`"),
        (["--stages.0.learning_rate", "fast"], "got 'fast' (str), but it must be a number"),
        (["--stages.0.eval_strategy", "stepz"], "got 'stepz'. Did you mean `steps`"),
        (["--model.lora_rr", "4"], "`ModelConfig` has no such key. Did you mean `lora_r`"),
        (["--model.from_scratch.hidden_sise", "4"], "`qwen3` has no such field. Did you mean `hidden_size`"),
        (["--model.from_scratch.model_type", "qwen33"], "unknown model type 'qwen33'"),
        (["--model.model_name_or_path", "x"], "give either `model_name_or_path` or `from_scratch`"),
        (["--model.device", "cuda"], "cuda was asked for, but torch sees no CUDA device"),
        (["--data.userz", "4"], "unknown key. Did you mean `users`"),
        (["--data.call", "rectune.data_builders.sintetic:x"], "no module `rectune.data_builders.sintetic`"),
        (["--stages.0.call", "rectune.methods.sfd"], "no module `rectune.methods.sfd`. Did you mean `rectune.methods.sft`"),
        (["--rank.beam", "4"], "unknown key. Did you mean `beams`"),
        (["--rank.max_length", "-1"], "`rank.max_length` must be at least 1 token, got -1"),
        (["--eval.k", "[3, -1]"], "got [3, -1], but a list holds at least 1 item"),
        (["--eval.oracle", "syntetic"], "`eval.oracle`: there is no `syntetic`. Did you mean `synthetic`"),
        (["--eval.oracle", "../../oracle"], "`eval.oracle`: got '../../oracle'; a name is 'package.module:function'"),
        (["--rank.k", "11"], "only `rank.beams` = 10 items are searched"),
        (["--rank.wording", "7"], "has wordings 0 to 0"),
        (["--rank.template", "next-item.jinja"], "no task trains `next-item.jinja`"),
        (["--tasks.0.template", "next-itm.jinja"], "`next-itm.jinja` was not found"),
        (["--tasks.0.share", "0"], "must be a number above 0"),
        (["--eval.kk", "[1]"], "unknown key. Did you mean `k`"),
        (["--eval.ease_items", "0"], "got 0, but it must be a number from 1 on"),
        (["--rank.prior", "{call: prior, neighbours: -1}"], "`rank.prior.neighbours`: got -1, but it must be a number from 1 on"),
        (["--rank.prior", "{call: prior, ease_items: -2}"], "`rank.prior.ease_items`: got -2, but it must be a number from 1 on"),
        (["--split.max_history", "0"], "`max_history` is in items and must be at least 1"),
        (["--data.users", "0"], "sizes must be at least 1"),
        (["--split.call", "rectune.log.splits.given:given"], "does not come split"),
        (["--nothing.here", "1"], "unknown section"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_one_line_and_leaves_nothing(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    if torch_sees_cuda() and "cuda" in message:
        pytest.skip("this machine has a CUDA device")
    assert message in fails(capsys, "train", str(quick_recipe), *overrides)
    kept = [p.name.partition("-")[0] for p in (tmp_path / "run" / "stages").glob("*")]
    assert set(kept) <= {"log"}  # a whole log may stay, it serves the next try
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("report*"))


def torch_sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


TABLE = """
include: quick.yaml
data: {call: table, path: log.csv}
index: {call: atomic}
eval: {oracle: null}
"""


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("user,item\n", [], "log.csv: the log is empty"),
        ("user,item\nu,a\nu\n", [], "log.csv:3: 1 fields, but 2 columns"),
        ("user,item\nu,a\nu,b\nu,c\n", ["--data.user", "usr"], "no column `usr` (named by `data.user`)"),
        ("user,item,t\nu,a,1\nu,b,noon\n", ["--data.time", "t"], "`time` is not a number in 1 rows, the first is data row 2: 'noon'"),
        ("user,item\nu,a\nu,b\nu,c\n", ["--data.user_core", "9"], "no event is left at user_core=9"),
        ("user,item\nu,a\nu,a\nu,a\n", [], "the catalogue holds 1 item; ranking needs at least 2"),
        ("user,item\n" + "u,a\nu,b\nu,c\nv,b\nv,c\nv,a\n" * 2, ["--eval.k", "[4]"], "k = 4, but the catalogue holds only 3 items"),
        ("user,item\nu,a\nu,b\nu,c\n", ["--split.call", "rectune.log.splits.by_time:by_time"], "`by_time` needs times"),
        ("user,item\nu,a\nu,b\nu,c\n", ["--data.path", "lgo.csv"], "`lgo.csv` was not found. Looked for"),
        ("user,item\nu,a\nu,b\nu,c\nv,d\nv,e\nv,f\n", [], "there is no training example"),
    ],
)  # fmt: skip
def test_a_bad_log_is_one_line(
    quick_recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    overrides: list[str],
    message: str,
) -> None:
    (tmp_path / "log.csv").write_text(text)
    (tmp_path / "table.yaml").write_text(TABLE + f"output_dir: {tmp_path / 'run'}\n")
    assert message in fails(capsys, "train", str(tmp_path / "table.yaml"), *overrides)
    assert not list(tmp_path.glob("run/stages/log-*.partial"))
    assert not list(tmp_path.glob("run/report*"))


def test_a_folder_of_another_recipe_is_not_touched(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"recipe": "other"}')
    assert "belongs to the recipe `other`" in fails(capsys, "train", str(quick_recipe))
    (run / "run.json").unlink()
    (run / "thesis.tex").write_text("x")
    assert "is not empty and not a run folder" in fails(capsys, "train", str(quick_recipe))
    assert [f.name for f in run.iterdir()] == ["thesis.tex"]


def test_a_full_disk_is_one_line_and_leaves_nothing(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import polars as pl

    def full(self: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        Path(file).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    assert "error: No space left on device" in fails(capsys, "train", str(quick_recipe))
    assert not (tmp_path / "run").exists()


def test_two_runs_cannot_work_in_one_folder(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rectune.run.folder import RunFolder

    with RunFolder(tmp_path / "run", "quick").lock():
        assert "another run is working in" in fails(capsys, "train", str(quick_recipe))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, message in (
        (["eval", str(tmp_path)], "is not a finished run folder"),
        (["recommend", str(tmp_path), "--items", "a"], "is neither a finished run folder, nor a bundle"),
    ):
        assert message in fails(capsys, *command)


def test_a_template_that_asks_for_too_much_is_one_line(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "{% set wordings = 1 %}{% macro prompt(wording, histroy) %}x{% endmacro %}{% macro completion(wording, target) %}{{ target.name }}{% endmacro %}"
    (tmp_path / "mine.jinja").write_text(text)
    error = fails(
        capsys, "train", str(quick_recipe), "--tasks.0.template", "mine.jinja", "--rank.template", "mine.jinja"
    )
    assert "`prompt` asks for `histroy`, which this task does not give. Did you mean `history`" in error


def test_a_ranking_whose_prompts_cannot_fit_is_refused_before_the_training(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--tasks.0.template",
        "next-item.jinja",
        "--tasks.0.examples",
        "targets",
        "--rank.template",
        "next-item.jinja",
    ]
    loss = ["--stages.0.completion_only_loss", "true"]
    error = fails(capsys, "train", str(quick_recipe), *words, *loss, "--rank.max_length", "1")
    assert "`rank.max_length`: test row" in error
    assert "tokens of prompt without any history, but only 1 fit" in error
    assert not list(tmp_path.glob("run/stages/train*"))


def test_a_checkpoint_that_is_not_there_is_one_line(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = fails(
        capsys,
        "train",
        str(quick_recipe),
        "--model.from_scratch",
        "null",
        "--model.model_name_or_path",
        str(tmp_path / "none"),
    )
    assert "no tokenizer could be loaded from" in error


def test_preview_marks_the_trained_tokens(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preview", str(quick_recipe), "--examples", "2", "--traceback"]) == 0
    out = capsys.readouterr().out
    assert "⟦<|start|><a_" in out  # the loss is on all
    assert "no target is cut, no example dropped" in out
    assert not (tmp_path / "run").exists()
    change = [
        "--stages.0.completion_only_loss",
        "true",
        "--tasks.0.examples",
        "targets",
        "--tasks.0.template",
        "next-item.jinja",
    ]
    assert main(["preview", str(quick_recipe), *change, "--rank.template", "next-item.jinja", "--traceback"]) == 0
    out = capsys.readouterr().out
    assert "<|start|>" in out
    assert "<|end|>⟧" in out
    assert "⟦<|start|>" not in out


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("out of memory for a single row: lower `rank.beams`."),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    ],
)
def test_no_memory_and_no_room_on_the_disk_are_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("rectune.recipe.load.load_recipe", fail)
    assert main(["show", "quickstart"]) == 1
    assert capsys.readouterr().err == f"error: {error}\n"


def said_by(*command: str) -> str:
    """What a command of its own process says beside its result."""
    import subprocess
    import sys

    out = subprocess.run([sys.executable, "-m", "rectune", *command], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    return out.stderr


def test_libraries_are_silent_in_a_preview(quick_recipe: Path) -> None:
    # what they say while they are loaded is shown by a training, below
    out = forked("-m", "rectune", "preview", str(quick_recipe), "--examples", "1")
    assert (out.returncode, out.stderr) == (0, "")


@pytest.mark.heavy
def test_libraries_are_silent_and_our_warnings_are_told_once(quick_recipe: Path, tmp_path: Path) -> None:
    window = ["--model.from_scratch.sliding_window", "8", "--model.from_scratch.use_sliding_window", "true"]
    said = said_by("train", str(quick_recipe), *window, "--model.from_scratch.max_window_layers", "0").strip()
    assert said.startswith("warning: ranking falls back to `generate`")
    assert "\n" not in said
    exported = forked("-m", "rectune", "export", str(tmp_path / "run"))
    assert exported.returncode == 0, exported.stderr
    assert exported.stderr in ("", f"{said}\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_read_enough_is_no_error(unbuffered: str) -> None:
    command = f"{sys.executable} -m rectune ls data | head -1; echo ${{PIPESTATUS[0]}}"
    for _ in range(3):  # the rest may have been on its way already, or not
        done = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
        assert done.stderr == ""
        assert done.stdout.splitlines()[0].startswith("data: ")
        assert done.stdout.splitlines()[1] in ("0", "141")


def test_a_broken_pipe_of_another_kind_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: object) -> None:
        raise BrokenPipeError(32, "Broken pipe", "a socket")

    monkeypatch.setattr("rectune.commands.ls", broken)
    assert "Broken pipe (a socket)" in fails(capsys, "ls")


def test_init_knows_its_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").write_text("user,item\nu,a\nu,b\n")
    said = fails(capsys, "init", str(tmp_path / "log.csv"), "--users", "u", "--to", str(tmp_path / "mine.yaml"))
    assert "`--users`: `rectune init` has no such option. See `rectune init --help`" in said
    assert not (tmp_path / "mine.yaml").exists()
