"""Which weights a figure was measured with: the hashes of a base's files, or its commit on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rectune.model.settings import ModelSettings, base_called
from rectune.runtime.cache import made_once
from rectune.runtime.files import sha256

KINDS = ("*.safetensors", "pytorch_model*.bin")


def weights_of(settings: ModelSettings) -> dict[str, Any] | None:
    """`name` of a base and the `sha256` of each of its weight files, or its `commit` on the Hub; None for a model from scratch.

    `random` instead where only its architecture is used. A folder goes by its last part, as paths say nothing elsewhere.
    """
    name = settings.library.model_name_or_path
    if name is None:
        return None
    folder = Path(name)
    said: dict[str, Any] = {"name": base_called(settings)}
    if settings.random_weights:
        return {**said, "random": True}
    if folder.is_dir():
        files = next((found for kind in KINDS if (found := sorted(folder.glob(kind)))), [])
        return {**said, "sha256": dict(zip([file.name for file in files], _hashes(files), strict=True))}
    return {**said, "commit": _commit(name, settings.library.model_revision)}


def _hashes(files: list[Path]) -> list[str]:
    """SHA-256 of each file, kept under its place, size and time."""
    known = {f"{file.resolve()} {(about := file.stat()).st_size} {about.st_mtime_ns}": file for file in files}

    def make(missing: list[str]) -> Any:
        for text in missing:
            yield text, sha256(known[text]).encode()

    return [made.decode() for made in made_once(list(known), make, name="hashes", maker="sha256")]


def _commit(name: str, revision: str | None) -> str | None:
    """The commit of a model of the Hub that lies in the cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None
