"""Files: written whole or not at all, and told apart by what they hold."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

HASHED = 256 * 2**20  # bytes; larger inputs are told by their time
MODELS = ("model", "model_name_or_path")  # arguments that name a model of the Hub or its folder


def write_atomic(file: Path, text: str) -> None:
    """Write beside the place and rename."""
    beside = file.with_name(f".{file.name}.partial")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, file)


def check_disk(folder: Path, needed: int, what: str, instead: str) -> None:
    """Raise OSError where the disk of a folder, which need not be there yet, has fewer than `needed` bytes free for `what`."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        unit, name = (1e9, "GB") if needed >= 1e9 else (1e6, "MB")
        raise OSError(
            f"no room in {there}: {what} take {needed / unit:.2f} {name} and {free / unit:.2f} {name} are free. Give another folder with {instead}."
        )


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stamp(path: Path, *, without: Path | None = None) -> list[Any]:
    """Name, size and content of a file, or of all files below a folder (but those below `without`): tells a changed input.

    Above `HASHED` bytes in all, times stand for contents.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    files = [f for f in files if without is None or without not in f.resolve().parents]
    known = [(f, f.stat()) for f in files]
    large = sum(about.st_size for _, about in known) > HASHED

    def content(file: Path) -> str:
        return sha256(file)[:12]

    return [
        [str(f.relative_to(path.parent)), about.st_size, about.st_mtime_ns if large else content(f)]
        for f, about in known
    ]


def stamps(arguments: dict[str, Any], *, without: Path) -> dict[str, Any]:
    """Stamps of all arguments that are paths or lists of paths, and of models that are given as a folder.

    Another text is no path, even where a file of its name lies in the working folder.
    """
    found = {}
    for name, value in arguments.items():
        several = list(value) if isinstance(value, list | tuple) else [value]
        if several and all(isinstance(one, Path) for one in several):
            found[name] = [stamp(one, without=without) for one in several]
        elif name in MODELS and isinstance(value, str) and Path(value).is_dir():
            found[name] = [stamp(Path(value), without=without)]
    return found


def inputs(arguments: dict[str, Any], *, without: Path) -> dict[str, Any]:
    """What a fingerprint says of the arguments of a callable: files and folders by their stamps, wherever they lie."""
    files = stamps(arguments, without=without)
    return {"arguments": {name: value for name, value in arguments.items() if name not in files}, "files": files}
