"""`rectune export --for ENGINE`: the catalogue of an exported folder in the form that an inference engine reads."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from rectune.bundle import engines
from rectune.bundle.catalogue import Catalogue, Written, read_catalogue
from rectune.bundle.files import ABOUT
from rectune.bundle.manifest import FILE, check_files
from rectune.runtime.near import near

FOLDER = "engines"  # in an exported folder
Writer = Callable[[Catalogue], Written]


def known_engines() -> list[str]:
    """The engines that there is a file of, by name."""
    places = map(Path, engines.__path__)
    return sorted(
        file.stem.replace("_", "-") for place in places for file in place.glob("*.py") if file.stem != "__init__"
    )


def writer_of(name: str) -> Writer:
    """The function that writes for an engine. Raises ValueError with near misses for an engine that there is no file of."""
    if name not in known_engines():
        raise ValueError(f"`--for {name}`: no engine of that name.{near(name, known_engines())}")
    stem = name.replace("-", "_")
    found: Writer = getattr(importlib.import_module(f"{engines.__name__}.{stem}"), stem)
    return found


def write_catalogues(bundle: Path, names: Sequence[str], to: Path) -> dict[str, str]:
    """Write what each engine reads into a folder of its name in `to`; returns what each is and what its engine is told.

    Raises ValueError for what an engine cannot list, and leaves nothing then."""
    if not names:
        return {}
    catalogue = read_catalogue(bundle)
    written = {name: writer_of(name)(catalogue) for name in names}
    for name, (file, held, _) in written.items():
        (to / name).mkdir(parents=True, exist_ok=True)
        (to / name / file).write_bytes(held)
    return {name: f"{file}: {use}" for name, (file, _, use) in written.items()}


def is_bundle(folder: Path) -> bool:
    """Whether a folder is one that was exported."""
    return (folder / FILE).is_file() and (folder / ABOUT).is_file()


def write_beside(bundle: Path, names: Sequence[str], to: str | Path | None) -> dict[str, str]:
    """Write catalogues of an exported folder into another one. Raises ValueError without a place, for one inside the folder, and for a damaged folder."""
    for name in names:
        writer_of(name)
    if to is None:
        raise ValueError(f"{bundle} is exported already. Say where its catalogue goes: --to FOLDER.")
    place = Path(to).resolve()
    if bundle.resolve() in (place, *place.parents):
        raise ValueError(f"`--to`: {place} is in the exported folder, whose files are sealed. Give another folder.")
    if place.exists() and not place.is_dir():
        raise ValueError(f"`--to`: {place} is a file, not a folder.")
    check_files(bundle)
    return write_catalogues(bundle, names, place)
