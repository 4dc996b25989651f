"""What a bundle's files are, by size and hash; nothing in it is read before it is checked."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from rectune.runtime.files import sha256

FILE = "manifest.json"
SCHEMA = 1  # of bundles: raised where an older rectune could not read them rightly
FREE = ("README.md", ".gitattributes", ".gitignore")  # people and the Hub write these
ASIDE = (".git", ".cache")  # what git and huggingface_hub keep in a folder
PICTURES = (".gif", ".jpg", ".jpeg", ".png", ".svg")  # of a card
# What a bundle is made of; no format of these can hold code that runs when it is read as we read it.
KINDS = (
    ".html",
    ".jinja",
    ".json",
    ".jsonl",
    ".md",
    ".model",
    ".npy",
    ".npz",
    ".parquet",
    ".safetensors",
    ".txt",
    ".vocab",
    ".yaml",
)


def write_manifest(folder: Path) -> None:
    """Write `manifest.json`: the schema, and size and SHA-256 of every file but the card."""
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in (*FREE, FILE)
    }
    (folder / FILE).write_text(json.dumps({"schema": SCHEMA, "files": files}, indent=1), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle. Raises ValueError where it is none that this rectune reads, and for names that lead outside of the folder."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        schema, files = found["schema"], found["files"]
        sizes = {str(name): (int(about["bytes"]), str(about["sha256"])) for name, about in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise ValueError(
            f"{folder}: its {FILE} is missing or damaged, so it is no bundle. Write it anew with `rectune export`."
        ) from None
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ValueError(
            f"{folder}: this bundle has schema {schema}, and this rectune reads up to {SCHEMA}. Type `pip install --upgrade rectune`."
        )
    for name in sizes:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or path.as_posix() != name:
            raise ValueError(
                f"{folder}: its {FILE} names `{name[:80]}`, which leads out of the folder. Nothing was read."
            )
        if path.suffix not in KINDS:
            raise ValueError(
                f"{folder}: `{name[:80]}` is of a kind that bundles don't hold (a pickle can run code). Nothing was read."
            )
    return {"schema": schema, "files": sizes}


def check_files(folder: Path) -> list[str]:
    """Check every file that the manifest names; returns their names. Raises ValueError for one that is missing, another, or a link out of the folder, and for
    what the manifest does not name."""
    files = read_manifest(folder)["files"]
    for name, (size, known) in files.items():
        file = folder / name
        if not file.is_file():
            raise ValueError(f"{folder}: the file `{name}` is missing. Fetch or export the bundle anew.")
        if not any(place == file.resolve() or place in file.resolve().parents for place in _homes(folder)):
            raise ValueError(f"{folder}: `{name}` is a link to a place outside of the folder. Nothing was read.")
        if file.stat().st_size != size or sha256(file) != known:
            raise ValueError(
                f"{folder}: the file `{name}` is not the one that was written (its SHA-256 differs). Fetch or export it anew."
            )
    for listed in folder.glob("*.index.json"):  # weights in several files
        for name in set(json.loads(listed.read_text(encoding="utf-8"))["weight_map"].values()):
            if name not in files or not str(name).endswith(".safetensors"):
                raise ValueError(
                    f"{folder}: {listed.name} names `{str(name)[:80]}`, which is no file of the bundle. Nothing was read."
                )
    for name in unlisted(folder, files):
        raise ValueError(f"{folder}: `{name[:80]}` is not of the bundle. Move it away. Nothing was read.")
    return list(files)


def unlisted(folder: Path, known: Collection[str]) -> Iterator[str]:
    """What lies in a bundle's folder beside what its manifest names, but for the card and its pictures."""
    for place in sorted(folder.rglob("*")):
        name = place.relative_to(folder).as_posix()
        aside = place.relative_to(folder).parts[0] in ASIDE or place.suffix.lower() in PICTURES
        if not aside and name not in (*FREE, FILE) and name not in known and (place.is_symlink() or not place.is_dir()):
            yield name


def _homes(folder: Path) -> Iterator[Path]:
    """Where its files may lie: in the folder, or, of a download, beside it in the cache of its repository."""
    yield folder.resolve()
    if folder.parent.name == "snapshots":
        yield (folder.parent.parent / "blobs").resolve()
