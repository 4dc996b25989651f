"""The run folder: a small build system of fingerprinted, atomic stages."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rectune
from rectune.runtime.processes import gather, is_main, wait

MARK = "run.json"
HASHED = 256 * 2**20  # bytes; larger inputs are told by their time


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
        mark = fingerprint(name, keys, [stage.fingerprint for stage in inputs])
        final = self.path / "stages" / f"{name}-{mark}"
        work = final.with_name(f"{final.name}.partial")
        # The main process decides whether the stage is there, so that all of them build or none does.
        there = final.exists() if alone else gather(final.exists())[0]
        if not there:
            self._build(work, final, build, resumes=resumes)
        if not alone:
            wait()
        return Stage(final, mark)

    def kept(self, name: str) -> Stage | None:
        """The pinned stage of that name, or None where nothing is pinned. Raises ValueError when its folder is gone."""
        if name not in self.pinned:
            return None
        stage = Stage(self.path / "stages" / f"{name}-{self.pinned[name]}", self.pinned[name])
        if not stage.folder.is_dir():
            raise ValueError(f"{self.path}: the stage {stage.folder.name} is gone. Run `rectune train` again.")
        return stage

    def _build(self, work: Path, final: Path, build: Callable[[Path], None], *, resumes: bool) -> None:
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
            os.replace(work, final)

    def claim(self) -> None:
        """Mark the folder as this recipe's."""
        if not (self.path / MARK).exists():
            write_atomic(self.path / MARK, json.dumps({"recipe": self.recipe_name, "rectune": rectune.__version__}))


def _remove_empty(folder: Path) -> None:
    """Leave nothing behind where no stage was finished."""
    stages = folder / "stages"
    if stages.is_dir() and not any(stages.iterdir()):
        stages.rmdir()
    if {p.name for p in folder.iterdir()} <= {".lock"}:
        shutil.rmtree(folder)


def fingerprint(name: str, keys: Any, inputs: Sequence[str]) -> str:
    """Twelve hex digits of a SHA-256 over everything a stage depends on."""
    text = json.dumps([rectune.__version__, name, keys, list(inputs)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_atomic(file: Path, text: str) -> None:
    """Write beside the place and rename."""
    beside = file.with_name(f".{file.name}.partial")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, file)


def source_of(function: Callable[..., Any]) -> str:
    """Hash of the file that defines `function`, so that editing it rebuilds what it made.

    A module whose work is done elsewhere names functions from there in `MADE_OF`; their files, and so on, count as well.
    """
    import inspect

    files: dict[str, None] = {}
    waiting = [inspect.getmodule(function)]
    while waiting:
        module = waiting.pop()
        file = getattr(module, "__file__", None)
        if file and file not in files:
            files[file] = None
            waiting += [inspect.getmodule(other) for other in getattr(module, "MADE_OF", ())]
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:12] if files else ""


def stamp(path: Path, *, without: Path | None = None) -> list[Any]:
    """Name, size and content of a file, or of all files below a folder (but those below `without`): tells a changed input.

    Above `HASHED` bytes in all, times stand for contents.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    files = [f for f in files if without is None or without not in f.resolve().parents]
    known = [(f, f.stat()) for f in files]
    large = sum(about.st_size for _, about in known) > HASHED

    def content(file: Path) -> str:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:12]

    return [
        [str(f.relative_to(path.parent)), about.st_size, about.st_mtime_ns if large else content(f)]
        for f, about in known
    ]


def stamps(arguments: dict[str, Any], *, without: Path) -> dict[str, Any]:
    """Stamps of all arguments that are paths, or texts that name an existing file or folder."""
    paths = {
        n: Path(v)
        for n, v in arguments.items()
        if isinstance(v, Path) or (isinstance(v, str) and v and Path(v).exists())
    }
    return {name: stamp(path, without=without) for name, path in paths.items()}


def inputs(arguments: dict[str, Any], *, without: Path) -> dict[str, Any]:
    """What a fingerprint says of the arguments of a callable: files and folders by their stamps, wherever they lie."""
    files = stamps(arguments, without=without)
    return {"arguments": {name: value for name, value in arguments.items() if name not in files}, "files": files}
