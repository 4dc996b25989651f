"""What tells a run that an input has changed."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from rectune.recipe import fingerprints
from rectune.recipe.box import Box
from rectune.recipe.fingerprints import code_of
from rectune.run.folder import RunFolder, Stage
from rectune.runtime import files
from rectune.runtime.files import inputs, stamp


def nothing(work: Path) -> None:
    """Build an empty stage."""


def place(
    folder: RunFolder, name: str, keys: Any = None, needs: Sequence[Stage] = (), build: Callable[[Path], None] = nothing,
    *, resumes: bool = False, made_by: Any = nothing,
) -> Stage:  # fmt: skip
    """A stage of a folder."""
    box = Box(
        name,
        (),
        lambda: keys or {},
        lambda held, work: build(work),
        lambda held, work: None,
        (made_by,),
        resumes=resumes,
    )
    return folder.stage(box, needs, None)  # type: ignore[arg-type]


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
        lines = [f"from {before} import made as other"] if before else []
        (tmp_path / f"{name}.py").write_text("\n".join([*lines, "def made():", "    pass"]))
    made = importlib.import_module("top_").made
    before = code_of(made)
    assert code_of(made) == before
    (tmp_path / "deep_.py").write_text("def made():\n    return 1")
    touch(tmp_path / "deep_.py")
    assert code_of(made) != before


@pytest.mark.parametrize(
    ("made", "of", "not_of"),
    [
        ("rectune.baselines.prior:fit", "ease markov scoring sasrec_network log", "popularity beam ranking"),
        ("rectune.indexing.rq_vae:rq_vae", "quantised quantiser sinkhorn repair item_index split", "titles beam sft"),
        ("rectune.tasks.next_title:next_title", "next_item rows views", "rating beam"),
        ("rectune.tasks.like_or_dislike:like_or_dislike", "opinions rows views history", "next_item ranking"),
        ("rectune.log.splits.by_user:by_user", "split row_parts log", "by_time rq_vae"),
        ("rectune.vectors.sentences:sentences", "texts item_vectors", "hidden_states sasrec"),
        ("rectune.vectors.sasrec:sasrec", "sasrec_network", "texts"),
        (
            "rectune.methods.sft:train",
            "training target_head choosing token_audit examples encoder beam trie",
            "seq2seq ease page",
        ),
        ("rectune.methods.sft:load", "adapters beam encoder", "seq2seq ease"),
        ("rectune.data_builders.tallrec:tallrec", "already_split log", "amazon sft"),
        ("rectune.eval.ranking:ranking", "intervals page ease", "rq_vae"),
        ("rectune.model.load:build_base", "encoder new_tokens", "ease sft"),
        ("rectune.decoding.language_model:catalogue_trie", "trie encoder template", "sft ease"),
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
    code_of(function)
    assert set(of.split()) <= set(read)
    assert not set(not_of.split()) & set(read)


def test_comments_and_docstrings_mark_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "told_.py"
    file.write_text('"""One."""\ndef made():\n    """Two."""\n    return 1\n')
    made = importlib.import_module("told_").made
    before = code_of(made)
    file.write_text('"""Another."""\n\n# why\ndef made():\n    return 1  # so\n')
    touch(file)
    assert code_of(made) == before
    file.write_text("def made():\n    return 2\n")
    touch(file, 2)
    assert code_of(made) != before


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
        place(RunFolder(tmp_path / "run", "shop"), "log", build=full)
    assert str(told.value.filename).startswith(str(tmp_path / "run" / "stages" / "log-"))
    assert not list((tmp_path / "run" / "stages").iterdir())


def test_a_folder_says_why_it_builds(tmp_path: Path) -> None:
    said: list[str] = []

    def ask(levels: int, learning_rate: float = 0.1, call: str = "m:table") -> None:
        folder = RunFolder(tmp_path / "run", "r")
        folder.tell = said.append
        log = place(folder, "log", {"call": call})
        index = place(folder, "index", {"arguments": {"levels": levels}}, [log])
        keys = {"stage": {"learning_rate": learning_rate, "tasks": [1]}}
        for _ in range(2):  # asked again: said once
            place(folder, "train0", keys, [log, index])

    ask(3)
    assert said == [f"{name}: building, as there is none" for name in ("log", "index", "train0")]
    said.clear()
    ask(3)
    assert said == ["log: kept", "index: kept", "train0: kept"]
    said.clear()
    ask(4)
    assert said == ["log: kept", "index: building, as `levels` was 3 and is 4", "train0: building, as index is another"]
    said.clear()
    ask(4, 0.2)
    assert said[-1] == "train0: building, as `stage.learning_rate` was 0.1 and is 0.2"
    said.clear()
    ask(4, 0.2, call="m:other")
    assert said == [
        'log: building, as `call` was "m:table" and is "m:other"',
        "index: building, as log is another",
        "train0: building, as log and index are another",
    ]
    said.clear()
    ask(3)
    assert said == ["log: kept", "index: kept", "train0: kept"]


def test_a_stage_that_was_killed_says_that_it_goes_on(tmp_path: Path) -> None:
    said: list[str] = []

    def stops(work: Path) -> None:
        raise KeyboardInterrupt

    for build in (stops, nothing):
        folder = RunFolder(tmp_path / "run", "r")
        folder.tell = said.append
        with contextlib.suppress(KeyboardInterrupt):
            place(folder, "train0", build=build, resumes=True)
    assert said == ["train0: building, as there is none", "train0: goes on where it was stopped"]


def test_another_stage_of_a_kind_in_the_same_run_is_not_what_a_stage_replaces(tmp_path: Path) -> None:
    said: list[str] = []
    for k in (5, 10):
        folder = RunFolder(tmp_path / "run", "r")
        folder.tell = said.append
        for hidden in (True, False):
            place(folder, "rank", {"hidden": hidden, "k": k})
    assert said[:2] == ["rank: building, as there is none"] * 2
    assert said[2:] == [
        "rank: building, as `hidden` was false and is true and `k` was 5 and is 10",
        "rank: building, as `k` was 5 and is 10",
    ]


def line_of_three(path: Path, said: list[str], built: list[str], made_by: Any, rebuild: str = "") -> RunFolder:
    """A log, an index made from it and a training of both, the index by `made_by`."""
    folder = RunFolder(path, "r")
    folder.tell, folder.rebuild = said.append, frozenset(rebuild.split())
    log = place(folder, "log", build=lambda work: built.append("log"))
    index = place(folder, "index", needs=[log], build=lambda work: built.append("index"), made_by=made_by)
    place(folder, "train0", needs=[log, index], build=lambda work: built.append("train0"), resumes=True)
    return folder


def test_what_other_code_made_is_kept_and_told_and_built_anew_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "own_index_.py"
    file.write_text("def made():\n    return 1\n")
    made = importlib.import_module("own_index_").made
    said: list[str] = []
    built: list[str] = []
    line_of_three(tmp_path / "run", said, built, made)
    assert built == ["log", "index", "train0"]
    file.write_text("def made():\n    return 2\n")
    touch(file)
    said.clear()
    folder = line_of_three(tmp_path / "run", said, built, made)
    assert built == ["log", "index", "train0"]
    assert folder.other_code == ["index"]
    assert said == [
        "log: kept",
        "index: kept, though it was made by other code (`--rebuild index` makes it anew)",
        "train0: kept",
    ]
    said.clear()
    folder = line_of_three(tmp_path / "run", said, built, made, rebuild="index")  # and all that reads it
    assert built[3:] == ["index", "train0"]
    assert folder.other_code == []
    line_of_three(tmp_path / "run", said, built, made, rebuild="train")
    assert built[5:] == ["train0"]
    line_of_three(tmp_path / "run", said, built, made, rebuild="all")
    assert built[6:] == ["log", "index", "train0"]
    said.clear()
    line_of_three(tmp_path / "run", said, built, made)
    assert said == ["log: kept", "index: kept", "train0: kept"]


def test_a_killed_rebuild_leaves_nothing_that_was_made_from_the_old(tmp_path: Path) -> None:
    built: list[str] = []
    line_of_three(tmp_path / "run", [], built, nothing)

    def stops(work: Path) -> None:
        raise KeyboardInterrupt

    folder = RunFolder(tmp_path / "run", "r")
    folder.rebuild = frozenset({"log"})
    with contextlib.suppress(KeyboardInterrupt):
        place(folder, "log", build=stops)
    assert not list((tmp_path / "run" / "stages").glob("*-*"))
    line_of_three(tmp_path / "run", [], built, nothing)
    assert built == ["log", "index", "train0"] * 2


def test_lists_of_files_are_inputs_and_a_text_that_happens_to_name_a_file_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("title", "a.csv", "b.csv"):
        (tmp_path / name).write_text("x")
    said = inputs({"text": "title", "files": [Path("a.csv"), Path("b.csv")]}, without=tmp_path / "run")
    assert said["arguments"] == {"text": "title"}
    assert [file[0][0] for file in said["files"]["files"]] == ["a.csv", "b.csv"]
    (tmp_path / "title").write_text("y")
    assert inputs({"text": "title", "files": [Path("a.csv"), Path("b.csv")]}, without=tmp_path / "run") == said
    (tmp_path / "b.csv").write_text("y")
    assert inputs({"text": "title", "files": [Path("a.csv"), Path("b.csv")]}, without=tmp_path / "run") != said


def test_processes_that_share_the_same_batch_are_the_same_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from rectune.methods.out_of_memory import for_fingerprint

    def said(rows: int, processes: int) -> Any:
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        config = SimpleNamespace(per_device_train_batch_size=rows, gradient_accumulation_steps=1)
        return for_fingerprint({"learning_rate": 0.1, "per_device_train_batch_size": rows}, config)

    assert said(16, 1) == said(8, 2)
    assert said(8, 1) != said(8, 2)
