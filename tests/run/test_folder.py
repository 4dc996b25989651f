"""What tells a run that an input has changed."""

from __future__ import annotations

import errno
import importlib
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from rectune.recipe import fingerprints
from rectune.recipe.fingerprints import source_of
from rectune.run.folder import RunFolder
from rectune.runtime import files
from rectune.runtime.files import inputs, stamp


def touch(file: Path, at: int = 1) -> None:
    os.utime(file, ns=(at, at))


def test_an_input_has_changed_when_its_content_has(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("user,item\n1,2\n")
    before = stamp(file)
    touch(file)
    assert stamp(file) == before  # copied or checked out again
    file.write_text("user,item\n1,3\n")
    assert stamp(file) != before


def test_a_file_is_the_same_input_wherever_it_lies(tmp_path: Path) -> None:
    said = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "names.index.json").write_text("{}")
        path = tmp_path / place / "names.index.json"
        said.append(inputs({"path": path, "levels": 3}, without=tmp_path / "run"))
    assert said[0] == said[1]
    assert said[0]["arguments"] == {"levels": 3}
    (tmp_path / "there" / "names.index.json").write_text("[]")
    assert inputs({"path": path, "levels": 3}, without=tmp_path / "run") != said[1]


def test_a_source_is_its_file_and_those_of_what_it_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, before in (("deep_", ""), ("middle_", "deep_"), ("top_", "middle_")):
        lines = [f"from {before} import made as other\nMADE_OF = (other,)"] if before else []
        (tmp_path / f"{name}.py").write_text("\n".join([*lines, "def made():", "    pass"]))
    made = importlib.import_module("top_").made
    before = source_of(made)
    assert source_of(made) == before
    (tmp_path / "deep_.py").write_text("def made():\n    return 1")
    touch(tmp_path / "deep_.py")
    assert source_of(made) != before


@pytest.mark.parametrize(
    ("made", "of", "not_of"),
    [
        ("rectune.baselines.prior:fit", "ease markov scoring sasrec_network", "popularity"),
        ("rectune.indexing.rq_vae:rq_vae", "quantised quantiser sinkhorn repair item_index", "titles"),
        ("rectune.tasks.next_title:next_title", "next_item rows views", "rating"),
        ("rectune.tasks.like_or_dislike:like_or_dislike", "opinions rows views history", "next_item"),
        ("rectune.log.splits.by_user:by_user", "split row_parts log", "by_time"),
        ("rectune.vectors.sentences:sentences", "texts item_vectors", "hidden_states"),
        ("rectune.vectors.sasrec:sasrec", "sasrec_network", "texts"),
        ("rectune.methods.sft:train", "training target_head choosing token_audit", "seq2seq"),
        ("rectune.data_builders.tallrec:tallrec", "already_split", "amazon"),
    ],
)
def test_an_edit_marks_what_is_made_of_the_file(
    made: str, of: str, not_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = made.partition(":")
    function = getattr(importlib.import_module(module), name)
    read: list[str] = []
    code = fingerprints._code
    monkeypatch.setattr(fingerprints, "_code", lambda file, time: read.append(Path(file).stem) or code(file, time))
    source_of(function)
    assert set(of.split()) <= set(read)
    assert not_of not in read


def test_comments_and_docstrings_mark_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "told_.py"
    file.write_text('"""One."""\ndef made():\n    """Two."""\n    return 1\n')
    made = importlib.import_module("told_").made
    before = source_of(made)
    file.write_text('"""Another."""\n\n# why\ndef made():\n    return 1  # so\n')
    touch(file)
    assert source_of(made) == before
    file.write_text("def made():\n    return 2\n")
    touch(file, 2)
    assert source_of(made) != before


def test_code_is_told_by_its_own_characters_whatever_the_version_of_python(tmp_path: Path) -> None:
    file = tmp_path / "told.py"
    file.write_text(
        '"""One\n# not a comment\n"""\nX = "# text"  # why\n\n\nclass A:\n    """Two."""\n\n    def f(self):  # so\n        \'Three.\'\n        return f"{X!r}"\n'
    )
    assert fingerprints._code(str(file), 0) == 'X = "# text"\nclass A:\n    def f(self):\n        return f"{X!r}"'


def test_a_large_input_is_told_by_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "HASHED", 10)
    file = tmp_path / "log.csv"
    file.write_text("user,item\n1,2\n")
    before = stamp(file)
    touch(file)
    assert stamp(file) != before


def test_a_folder_is_all_its_files_but_those_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("a")
    (tmp_path / "run").mkdir()
    before = stamp(tmp_path, without=tmp_path / "run")
    (tmp_path / "run" / "report.json").write_text("{}")
    assert stamp(tmp_path, without=tmp_path / "run") == before
    (tmp_path / "deep" / "b.txt").write_text("b")
    assert stamp(tmp_path, without=tmp_path / "run") != before


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError(errno.ENOSPC, "No space left on device"),  # as `write` raises it
    ],
)
def test_a_full_disk_is_told_with_its_place(error: Exception, tmp_path: Path) -> None:
    def full(work: Path) -> None:
        (work / "half").write_text("half")
        raise error

    with pytest.raises(OSError, match="No space left on device") as told:
        RunFolder(tmp_path / "run", "shop").stage("log", {}, [], full)
    assert str(told.value.filename).startswith(str(tmp_path / "run" / "stages" / "log-"))
    assert not list((tmp_path / "run" / "stages").iterdir())


def test_a_folder_says_why_it_builds(tmp_path: Path) -> None:
    said: list[str] = []

    def ask(levels: int, learning_rate: float = 0.1, source: str = "a") -> None:
        folder = RunFolder(tmp_path / "run", "r")
        folder.tell = said.append
        log = folder.stage("log", {"call": "m:table", "source": source}, [], lambda work: None)
        index = folder.stage("index", {"arguments": {"levels": levels}}, [log], lambda work: None)
        keys = {"stage": {"learning_rate": learning_rate, "tasks": [1]}}
        folder.stage("train0", keys, [log, index], lambda work: None)
        folder.stage("train0", keys, [log, index], lambda work: None)  # asked again: said once

    ask(3)
    assert said == [f"{name}: built, as there is none" for name in ("log", "index", "train0")]
    said.clear()
    ask(3)
    assert said == ["log: kept", "index: kept", "train0: kept"]
    said.clear()
    ask(4)
    assert said == ["log: kept", "index: built, as `levels` was 3 and is 4", "train0: built, as index is another"]
    said.clear()
    ask(4, 0.2)
    assert said[-1] == "train0: built, as `stage.learning_rate` was 0.1 and is 0.2"
    said.clear()
    ask(4, 0.2, source="b")
    assert said == [
        "log: built, as its code has changed",
        "index: built, as log is another",
        "train0: built, as log and index are another",
    ]
    said.clear()
    ask(3)
    assert said == ["log: kept", "index: kept", "train0: kept"]


def test_a_stage_that_was_killed_says_that_it_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    for stops in (True, False):
        folder = RunFolder(tmp_path / "run", "r")
        folder.tell = said.append

        def build(work: Path, stops: bool = stops) -> None:
            if stops:
                raise KeyboardInterrupt

        try:
            folder.stage("train0", {}, [], build, resumes=True)
        except KeyboardInterrupt:
            continue
    assert said == ["train0: built, as there is none", "train0: goes on where it was stopped"]


def test_another_stage_of_a_kind_in_the_same_run_is_not_what_a_stage_replaces(tmp_path: Path) -> None:
    said: list[str] = []
    for k in (5, 10):
        folder = RunFolder(tmp_path / "run", "r")
        folder.tell = said.append
        for hidden in (True, False):
            folder.stage("rank", {"hidden": hidden, "k": k}, [], lambda work: None)
    assert said[:2] == ["rank: built, as there is none"] * 2
    assert said[2:] == [
        "rank: built, as `hidden` was false and is true and `k` was 5 and is 10",
        "rank: built, as `k` was 5 and is 10",
    ]
