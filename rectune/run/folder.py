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
from rectune.recipe.fingerprints import fingerprint
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

    def stage(
        self,
        name: str,
        keys: Any,
        inputs: Sequence[Stage],
        build: Callable[[Path], None],
        *,
        resumes: bool = False,
        alone: bool = False,
    ) -> Stage:
        """Return the stage, built now unless it is already there.

        `keys` is all that the stage reads from the recipe. `build` fills a folder beside the final place, which is
        then renamed: a killed run leaves a whole stage or none. A stage that `resumes` finds what an earlier attempt
        left and is built by every process; the others are built by the main one from nothing. `alone`: only the main
        process asks, so nobody waits.
        """
        place = self.place(name, keys, inputs)
        final = place.folder
        work = final.with_name(f"{final.name}.partial")
        first = final.name not in self.asked
        self.asked.add(final.name)
        # The main process decides whether the stage is there, so that all of them build or none does.
        there = final.exists() if alone else gather(final.exists())[0]
        about = {"keys": keys, "needs": [stage.folder.name for stage in inputs]}
        if self.tell is not None and is_main() and first:
            self.tell(f"{name}: kept" if there else f"{name}: {why_built(final, about, self.asked, resumes=resumes)}")
        if not there:
            self._build(work, final, build, about, resumes=resumes)
        if not alone:
            wait()
        return place

    def place(self, name: str, keys: Any, inputs: Sequence[Stage]) -> Stage:
        """Where a stage lies or would lie."""
        mark = fingerprint(name, keys, [stage.fingerprint for stage in inputs])
        return Stage(self.path / "stages" / f"{name}-{mark}", mark)

    def kept(self, name: str) -> Stage | None:
        """The pinned stage of that name, or None where nothing is pinned. Raises ValueError when its folder is gone."""
        if name not in self.pinned:
            return None
        stage = Stage(self.path / "stages" / f"{name}-{self.pinned[name]}", self.pinned[name])
        self.asked.add(stage.folder.name)
        if not stage.folder.is_dir():
            raise ValueError(f"{self.path}: the stage {stage.folder.name} is gone. Run `rectune train` again.")
        return stage

    def _build(
        self, work: Path, final: Path, build: Callable[[Path], None], about: dict[str, Any], *, resumes: bool
    ) -> None:
        if not resumes and not is_main():
            return
        if work.exists() and not resumes:
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        try:
            build(work)
        except BaseException as error:
            if not resumes:
                shutil.rmtree(work, ignore_errors=True)
            full = "No space left on device"
            if full in str(error) and getattr(error, "filename", None) is None:
                raise OSError(errno.ENOSPC, full, str(work)) from error
            raise
        if resumes:
            wait()
        if is_main():
            self.claim()
            write_atomic(work / ASKED, json.dumps(about, default=str))
            os.replace(work, final)

    def claim(self) -> None:
        """Mark the folder as this recipe's."""
        if not (self.path / MARK).exists():
            write_atomic(self.path / MARK, json.dumps({"recipe": self.recipe_name, "rectune": rectune.__version__}))


def why_built(final: Path, about: dict[str, Any], asked: set[str], *, resumes: bool) -> str:
    """Why a stage is built: it goes on, nothing of its kind is there, or what differs from the one that was made last. Those that
    this run asked for, too, such as another ranking by the same model, are not what it replaces."""
    if resumes and final.with_name(f"{final.name}.partial").exists():
        return "goes on where it was stopped"
    name = final.name.rpartition("-")[0]
    others = [file for file in final.parent.glob(f"{name}-*/{ASKED}") if file.parent.name.rpartition("-")[0] == name]
    others = [file for file in others if file.parent.name not in asked]
    if not others:
        return "built, as there is none"
    latest = max(others, key=lambda file: file.stat().st_mtime_ns)
    before = json.loads(latest.read_text(encoding="utf-8"))
    changes = list(_changes(before, json.loads(json.dumps(about, default=str)), ""))
    return (
        f"built, as {' and '.join(changes[:2])}" if changes else "built, as it was made by another version of rectune"
    )


def _changes(before: Any, now: Any, path: str) -> Iterator[str]:
    """What differs between two askings, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            if before.get(key) != now.get(key):
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
    elif path.endswith("source"):
        yield "its code has changed"
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
