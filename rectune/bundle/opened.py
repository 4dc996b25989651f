"""Opening what somebody names: a run folder, a bundle, or a repository of the Hub."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import rectune.bundle.parts as parts
from rectune.bundle.bundle import Bundle
from rectune.bundle.files import ABOUT
from rectune.bundle.manifest import FILE
from rectune.bundle.reading import read_bundle
from rectune.run.rankings import prior_weight
from rectune.run.run import RESOLVED, open_run
from rectune.tasks.asked_histories import outside_of


def opened(
    named: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    device: str = "auto",
    dtype: str | None = None,
) -> Bundle:
    """A run folder, a bundle's folder, or a repository of the Hub, ready to recommend."""
    folder = Path(named)
    if (folder / FILE).exists() or (
        folder / ABOUT
    ).exists():  # first: a bundle must not pose as a run, whose recipe is code
        return read_bundle(folder, device=device, dtype=dtype)
    if (folder / RESOLVED).exists() and (folder / "run.json").exists():
        return of_run(folder, device=device, dtype=dtype)
    from rectune.bundle.hub import fetched, is_repository

    if folder.exists() or not is_repository(str(named)):
        raise FileNotFoundError(
            f"`{named}` is neither a finished run folder, nor a bundle that `rectune export` wrote, nor a repository of the Hub (USER/REPO)."
        )
    place, commit = fetched(
        str(named), revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
    )
    return read_bundle(place, device=device, dtype=dtype, commit=commit, name=str(named))


def of_run(folder: str | Path, *, device: str = "auto", dtype: str | None = None) -> Bundle:
    """A finished run, with the items that were added to it."""
    overrides = [("model.device", device)] * (device != "auto") + [("model.dtype", str(dtype))] * (dtype is not None)
    run = open_run(folder, overrides, added=True)
    prior, weight = None, 0.0
    if run.asked.prior is not None and run.rows.kind == "item":
        plain = open_run(folder)  # a prior belongs to the catalogue of the tuning
        weight = prior_weight(plain)["weight"]
        prior = parts.prior_of(partial(plain.__getitem__, "prior"), weight)
    return Bundle(
        name=str(folder), kind=run.rows.kind, outside=outside_of(run.split), index=run.index, encoder=run.encoder, template=run.asked.template,
        rank=run.asked.rank, trie=run.trie, task=run.asked.ranked, ranker=run.models["tuned"], vectors=run.vectors, prior=prior, prior_weight=weight,
        sources=run.asked.vectors, fitted=() if run.vectors is None else run.vectors.fitted, report=parts.page_in(Path(folder)),
        recipe=run.asked.recipe.name, chooses=run.rows.judged == "choice",
    )  # fmt: skip
