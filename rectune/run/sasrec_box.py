"""The SASRec of a run: trained once, a row of the table and a part of the prior."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, get_type_hints

from rectune.baselines.sasrec_settings import SasRecSettings
from rectune.recipe.box import Box, Held
from rectune.recipe.checking import check_type
from rectune.recipe.load import Recipe
from rectune.runtime.near import near, shown
from rectune.runtime.processes import is_main

NAME = "sasrec"
MOST = 4  # configurations: each of them is a training


@dataclass(frozen=True)
class AskedSasRec:
    """The section `sasrec`: the configurations of which validation chooses one, the seed, and where they are trained."""

    several: tuple[SasRecSettings, ...]
    seed: int
    device: str

    @property
    def reads_vectors(self) -> bool:
        """Whether item vectors enter."""
        return any(settings.vectors is not None for settings in self.several)


def read_sasrec(recipe: Recipe, seed: int) -> AskedSasRec | None:
    """The section `sasrec` of a recipe, checked; None where there is none. A key with a list of values is tried with each of them."""
    for other in ("rank.prior", "eval"):
        before = recipe.settings
        for name in other.split("."):
            before = before.get(name) or {}
        if "sasrec_epochs" in before:
            raise ValueError(
                f"{recipe.where(f'{other}.sasrec_epochs')}: there is no such key any more; how a SASRec is trained, for the table and for the "
                "prior, stands in a section of its own: `sasrec: {epochs: 30}`."
            )
    section = recipe.settings.get("sasrec")
    if section is None:
        return None
    if not isinstance(section, dict):
        raise TypeError(
            f"{recipe.where('sasrec')}: got {shown(section)}, but it must be a mapping, such as {{epochs: 30}}."
        )
    hints, known = get_type_hints(SasRecSettings), [field.name for field in fields(SasRecSettings)]
    tried: dict[str, list[Any]] = {}
    for name, value in section.items():
        where = recipe.where(f"sasrec.{name}")
        if name not in known:
            raise ValueError(f"{where}: SASRec has no such key.{near(str(name), known)}")
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ValueError(f"{where}: got {shown(value)}; give a value, or a list of those to try.")
        tried[name] = [check_type(one, hints[name], where) for one in values]
    several = []
    for chosen in product(*tried.values()):
        try:
            several.append(replace(SasRecSettings(), **dict(zip(tried, chosen, strict=True))))
        except ValueError as error:
            raise ValueError(f"{recipe.where('sasrec')}: {error}") from None
    if len(several) > MOST:
        raise ValueError(
            f"{recipe.where('sasrec')}: {len(several)} configurations; at most {MOST} are tried, each of them is a training."
        )
    if any(settings.vectors for settings in several) and not recipe.settings.get("vectors"):
        raise ValueError(f"{recipe.where('sasrec.vectors')}: this recipe has no section `vectors`.")
    return AskedSasRec(tuple(several), seed, recipe.settings["model"].get("device") or "auto")


def sasrec_box(asked: AskedSasRec) -> Box:
    """The trained SASRec; what it holds is a `SasRec`."""
    from rectune.baselines.sasrec_network import load_sasrec
    from rectune.baselines.sasrec_training import best_sasrec

    def build(held: Held, folder: Path) -> None:
        if not is_main():
            return
        split = held["split"]
        vectors = held["vectors"].joined() if asked.reads_vectors else None
        best_sasrec(split, asked.several, seed=asked.seed, device=asked.device, vectors=vectors, folder=folder)

    return Box(
        NAME, ("split", "vectors") if asked.reads_vectors else ("split",),
        lambda: {"configurations": [asdict(settings) for settings in asked.several], "seed": asked.seed},
        build, lambda held, folder: load_sasrec(folder), (best_sasrec,), resumes=True,
    )  # fmt: skip
