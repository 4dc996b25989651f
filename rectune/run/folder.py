"""The run folder: a small build system of fingerprinted, atomic stages."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rectune
from rectune.recipe.box import Box, Held
from rectune.recipe.fingerprints import code_of, fingerprint
from rectune.runtime.files import write_atomic
from rectune.runtime.processes import gather, is_main, wait

MARK = "run.json"
ASKED = "asked.json"  # in a stage: its keys and what it was made from


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder and its fingerprint."""

    folder: Path
    fingerprint: str


class RunFolder:
    """A folder that belongs to one recipe. Each stage's output lies in `stages/<name>-<fingerprint>`."""

    def __init__(self, path: Path, recipe_name: str) -> None:
        """Raises ValueError when the folder holds something else, or another recipe's run."""
        self.path, self.recipe_name = path.resolve(), recipe_name
        self.pinned: dict[str, str] = {}  # stages of a finished run, name -> fingerprint: used as they are
        self.asked: set[str] = set()  # folder names of the stages that were asked for
        self.tell: Callable[[str], None] | None = None  # takes a line for each stage: kept, or built and why
        self.rebuild: frozenset[str] = frozenset()  # names of boxes that are built anew, or 'all'
        self.other_code: list[str] = []  # boxes that were asked for and made by other code than there is
        self.on_other_code: Callable[[str], None] | None = None  # takes their names
        self._rebuilt: set[str] = set()
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"`output_dir`: {path} is a file, not a folder.")
        mark = self.path / MARK
        if mark.exists():
            owner = json.loads(mark.read_text())["recipe"]
            if owner != recipe_name:
                raise ValueError(
                    f"`output_dir`: {path} belongs to the recipe `{owner}`. Give `{recipe_name}` another one with --output_dir."
                )
        elif self.path.is_dir() and any(
            name.name not in ("stages", ".lock") and name.suffix != ".partial" for name in self.path.iterdir()
        ):
            raise ValueError(
                f"`output_dir`: {path} is not empty and not a run folder. Give another one with --output_dir."
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this run. Raises ValueError when another run holds it."""
        if not is_main():
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"another run is working in {self.path}. Wait for it, or give another --output_dir."
                ) from None
            try:
                yield
            finally:
                if not (self.path / MARK).exists():
                    _remove_empty(self.path)

    def stage(self, box: Box, needs: Sequence[Stage], held: Held) -> Stage:
        """Where a box lies, built now unless it is already there.

        `build` fills a folder beside the final place, which is then renamed: a killed run leaves a whole stage or none. One that
        was made by other code is used, and that is said.
        """
        if kept := self._pinned(box):
            return kept
        keys = box.keys()
        place = self.place(box.name, keys, needs)
        final = place.folder
        first = final.name not in self.asked
        self.asked.add(final.name)
        if not first and final.exists():
            return place
        if self.rebuild and is_main():
            self._forget(box.name, final)
        # The main process decides whether the stage is there, so that all of them build or none does.
        there = final.exists() if box.alone else gather(final.exists())[0]
        about = {"keys": keys, "needs": [stage.folder.name for stage in needs], "code": code_of(*box.made_by)}
        if is_main() and first:
            self._say(box, final, about, there=there)
        if not there:
            self._build(box, final, held, about)
        if not box.alone:
            wait()
        return place

    def place(self, name: str, keys: Any, needs: Sequence[Stage]) -> Stage:
        """Where a stage lies or would lie."""
        mark = fingerprint(name, keys, [stage.fingerprint for stage in needs])
        return Stage(self.path / "stages" / f"{name}-{mark}", mark)

    def _pinned(self, box: Box) -> Stage | None:
        """The pinned stage of a box, or None where it is none. Raises ValueError when its folder is gone."""
        if box.name not in self.pinned:
            return None
        stage = Stage(self.path / "stages" / f"{box.name}-{self.pinned[box.name]}", self.pinned[box.name])
        if not stage.folder.is_dir():
            raise ValueError(f"{self.path}: the stage {stage.folder.name} is gone. Run `rectune train` again.")
        if stage.folder.name not in self.asked:
            self.asked.add(stage.folder.name)
            self._compare(box.name, stage.folder, code_of(*box.made_by))
        return stage

    def _say(self, box: Box, final: Path, about: dict[str, Any], *, there: bool) -> None:
        """One line of what becomes of a box, where somebody listens."""
        same = self._compare(box.name, final, about["code"]) if there else True
        if self.tell is None:
            return
        if not there:
            self.tell(f"{box.name}: {why_built(final, about, self.asked, resumes=box.resumes)}")
        elif same:
            self.tell(f"{box.name}: kept")
        else:
            self.tell(f"{box.name}: kept, though it was made by other code (`--rebuild {box.name}` makes it anew)")

    def _compare(self, name: str, folder: Path, code: str) -> bool:
        """Whether a stage was made by the code that there is; where it was not, that is kept for the report."""
        file = folder / ASKED
        before = json.loads(file.read_text(encoding="utf-8")).get("code") if file.exists() else None
        if before is None or not code or before == code:
            return True
        if name not in self.other_code:
            self.other_code.append(name)
            if self.on_other_code is not None:
                self.on_other_code(name)
        return False

    def _forget(self, name: str, final: Path) -> None:
        """Remove a stage that is to be built anew, and before it all that was made from it."""
        if not ({name, name.rstrip("0123456789"), "all"} & self.rebuild) or final.name in self._rebuilt:
            return
        self._rebuilt.add(final.name)
        for stage in [*self._made_from(final.name), final]:
            for old in (stage, stage.with_name(f"{stage.name}.partial")):
                shutil.rmtree(old, ignore_errors=True)

    def names(self) -> set[str]:
        """The names of the stages that are there, finished or not, those that read the line, such as rankings, among them."""
        return {place.name.rpartition("-")[0] for place in (self.path / "stages").glob("*-*")}

    def _made_from(self, name: str) -> list[Path]:
        """The stages that read a stage, and those that read these; what reads comes before what is read."""
        found: list[Path] = []
        for file in sorted((self.path / "stages").glob(f"*/{ASKED}")):
            if name in json.loads(file.read_text(encoding="utf-8"))["needs"]:
                found += [*self._made_from(file.parent.name), file.parent]
        return list(dict.fromkeys(found))

    def _build(self, box: Box, final: Path, held: Held, about: dict[str, Any]) -> None:
        if not box.resumes and not is_main():
            return
        work = final.with_name(f"{final.name}.partial")
        if work.exists() and not box.resumes:
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        try:
            box.build(held, work)
        except BaseException as error:
            if not box.resumes:
                shutil.rmtree(work, ignore_errors=True)
            full = "No space left on device"
            if full in str(error) and getattr(error, "filename", None) is None:
                raise OSError(errno.ENOSPC, full, str(work)) from error
            raise
        if box.resumes:
            wait()
        if is_main():
            self.claim()
            write_atomic(work / ASKED, json.dumps(about, default=str))
            os.replace(work, final)

    def claim(self) -> None:
        """Mark the folder as this recipe's."""
        if not (self.path / MARK).exists():
            write_atomic(self.path / MARK, json.dumps({"recipe": self.recipe_name, "rectune": rectune.__version__}))


class BorrowedFolder(RunFolder):
    """A run folder whose finished stages are used, while all others are built elsewhere; nothing is written into it."""

    def __init__(self, path: Path, recipe_name: str, elsewhere: Path) -> None:
        super().__init__(path, recipe_name)
        self._elsewhere = RunFolder(elsewhere / "stages of this command", recipe_name)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Nothing is held: nothing is written."""
        yield

    def stage(self, box: Box, needs: Sequence[Stage], held: Held) -> Stage:
        """The stage from the run folder where it is there, else built elsewhere."""
        if kept := self._pinned(box):
            return kept
        there = self.place(box.name, box.keys(), needs)
        return there if there.folder.is_dir() else self._elsewhere.stage(box, needs, held)


def why_built(final: Path, about: dict[str, Any], asked: set[str], *, resumes: bool) -> str:
    """Why a stage is built: it goes on, nothing of its kind is there, or what differs from the one that was made last. Those that
    this run asked for, too, such as another ranking by the same model, are not what it replaces."""
    if resumes and final.with_name(f"{final.name}.partial").exists():
        return "goes on where it was stopped"
    name = final.name.rpartition("-")[0]
    others = [file for file in final.parent.glob(f"{name}-*/{ASKED}") if file.parent.name.rpartition("-")[0] == name]
    others = [file for file in others if file.parent.name not in asked]
    if not others:
        return "building, as there is none"
    latest = max(others, key=lambda file: file.stat().st_mtime_ns)
    before = json.loads(latest.read_text(encoding="utf-8"))
    changes = list(_changes(before, json.loads(json.dumps(about, default=str)), ""))
    told = " and ".join(changes[:2]) if changes else "it was made by another version of rectune"
    return f"building, as {told}"


def _changes(before: Any, now: Any, path: str) -> Iterator[str]:
    """What differs between two askings, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            if key != "code" and before.get(key) != now.get(key):
                yield from _changes(
                    before.get(key), now.get(key), key if path in ("", "keys", "arguments") else f"{path}.{key}"
                )
    elif path == "needs":
        made = [name.rpartition("-")[0] for name in now if name not in before]
        gone = [
            name.rpartition("-")[0]
            for name in before
            if name.rpartition("-")[0] not in {n.rpartition("-")[0] for n in now}
        ]
        if made:
            yield f"{' and '.join(made)} {'is' if len(made) == 1 else 'are'} another"
        if gone:
            yield f"{' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} no longer read"
    elif any(isinstance(value, dict | list) for value in (before, now)) or max(len(str(before)), len(str(now))) > 60:
        yield f"`{path}` has changed"
    else:
        yield f"`{path}` was {json.dumps(before)} and is {json.dumps(now)}"


def _remove_empty(folder: Path) -> None:
    """Leave nothing behind where no stage was finished."""
    stages = folder / "stages"
    if stages.is_dir() and not any(stages.iterdir()):
        stages.rmdir()
    if {p.name for p in folder.iterdir()} <= {".lock"}:
        shutil.rmtree(folder)
