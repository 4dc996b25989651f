"""Opening what somebody names: a run folder, a bundle, or a repository of the Hub."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import rectune.bundle.parts as parts
from rectune.bundle.bundle import Bundle
from rectune.bundle.files import ABOUT
from rectune.bundle.manifest import FILE, check_files
from rectune.bundle.names import known, read_call_of
from rectune.decoding.trie import FILE as TRIE
from rectune.decoding.trie import Trie
from rectune.indexing.item_index import ItemIndex
from rectune.log.split import evenly
from rectune.methods.contract import Loading
from rectune.methods.language_model import as_ranker
from rectune.model.adapters import fold_adapter, load_tuned
from rectune.model.load import load_plain, load_tokenizer
from rectune.model.settings import ModelSettings, model_settings
from rectune.prompts.encoder import Encoder
from rectune.recipe.calls import Call
from rectune.recipe.load import Recipe
from rectune.run.rankings import prior_weight
from rectune.run.run import RESOLVED, open_run
from rectune.tasks.asked_histories import Outside, event_less, outside_of
from rectune.tasks.views import ItemViews
from rectune.vectors.item_vectors import ItemVectors, load_fitted

COMPARED = 200  # items whose names are encoded once more


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
    if (folder / RESOLVED).exists() and (folder / "run.json").exists():
        return of_run(folder, device=device, dtype=dtype)
    if (folder / FILE).exists() or (folder / ABOUT).exists():
        return read_bundle(folder, device=device, dtype=dtype)
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
        sources=run.asked.vectors, fitted=() if run.vectors is None else run.vectors.fitted, report=_page(Path(folder)),
        recipe=run.asked.recipe.name,
    )  # fmt: skip


def read_bundle(
    folder: Path, *, device: str = "auto", dtype: str | None = None, commit: str | None = None, name: str | None = None
) -> Bundle:
    """A bundle's folder. Every file is checked before any is read; nothing in it is run but its template, in a sandbox."""
    check_files(folder)
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    try:
        return _read(folder, about, device, dtype, commit, name or str(folder))
    except KeyError as error:
        raise ValueError(f"{folder}: its {ABOUT} does not say `{error.args[0]}`. Export the run anew.") from None


def _read(folder: Path, about: dict[str, Any], device: str, dtype: str | None, commit: str | None, name: str) -> Bundle:
    asked = about["asked"]
    method = known("stages", asked["method"], f"`{ABOUT}`, `method`")
    template = parts.read_template(folder, about)
    rank, task = parts.read_rank(asked, template.name), parts.read_task(asked, template)
    sources = [
        written if written.get("left") else read_call_of("vectors", written, f"`{ABOUT}`, `vectors`")
        for written in asked["vectors"]
    ]
    prior, weight = parts.read_prior(folder, about)
    items = parts.read_items(folder, list(asked["columns"]))
    index = ItemIndex.load(folder / parts.INDEX)
    settings = _settings(folder, about, device, dtype)
    encoder = Encoder(
        load_tokenizer(folder), index.vocabulary, form=settings.prompt_form, frame=parts.read_frame(asked)
    )
    trie = Trie.load(folder / TRIE) if (folder / TRIE).exists() else None
    split = event_less(items)
    _check_fit(folder, encoder, template, rank.wording, ItemViews(split, index), index, trie, items.height)
    loading = Loading(
        settings,
        folder,
        about["base"].get("name", "the base"),
        split,
        index,
        encoder,
        template,
        rank,
        trie,
        int(asked["seed"]),
    )
    if hasattr(method, "export"):
        ranker = method.load(loading, folder)
    elif (folder / "adapter_config.json").exists():
        ranker = as_ranker(
            loading, fold_adapter(load_tuned(settings, folder, folder, index, seed=loading.seed), settings)
        )
    else:
        ranker = as_ranker(loading, load_plain(settings, folder))
    vectors = folder / parts.VECTORS
    return Bundle(
        name=name, kind=about["kind"], outside=Outside(items, int(asked["longest_history"]), tuple(asked["ratings"])), index=index, encoder=encoder,
        template=template, rank=rank, trie=trie, task=task, ranker=ranker,
        vectors=ItemVectors.load(vectors) if task.reads_vectors else None, prior=prior, prior_weight=weight,
        sources=tuple(source if not isinstance(source, dict) else _missing(source) for source in sources),
        fitted=load_fitted(vectors, len(sources)), commit=commit, report=_page(folder), recipe=about["run"]["recipe"],
    )  # fmt: skip


def _settings(folder: Path, about: dict[str, Any], device: str, dtype: str | None) -> ModelSettings:
    """How the model is loaded: the whole weights of the folder, or its adapter on the base that it names."""
    model = dict(about["model"])
    model["model_name_or_path"] = model.get("model_name_or_path") or str(folder)
    if dtype is not None:
        model["dtype"] = dtype
    return model_settings(Recipe("rectune.json", {"model": {**model, "device": device}}))


def _page(folder: Path) -> Path | None:
    """The page of the report, where there is one."""
    file = folder / parts.PAGE
    return file if file.exists() else None


def _missing(written: dict[str, Any]) -> Call:
    """A source of vectors that read something of the machine which made the bundle."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError(f"`{written['call']}` reads `{written['left'][0]}`, which is not part of a bundle")

    return Call("vectors", refuse, {}, known=False)


def _check_fit(
    folder: Path,
    encoder: Encoder,
    template: Any,
    wording: int,
    view: Any,
    index: ItemIndex,
    trie: Trie | None,
    items: int,
) -> None:
    """Raise ValueError where catalogue, index, tokenizer and trie are not of one run."""
    if len(index) != items or (trie is not None and trie.n_items != items):
        raise ValueError(f"{folder}: it has {items} items, but names of {len(index)}. Its parts are not of one run.")
    if trie is None:
        return
    for item in evenly(items, COMPARED):
        name = encoder.completion_ids(template.completion(wording, {"target": view(int(item))}), end=template.end)
        leaf = trie.walk(name)
        if leaf < 0 or int(trie.item_of(np.array([leaf]))[0]) != int(item):
            raise ValueError(
                f"{folder}: its tokenizer writes the name of {view.called(int(item))} in other tokens than the trie holds; it is that of "
                "another base."
            )
