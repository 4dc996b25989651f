"""A bundle's folder, read: every file checked before any is read, and nothing in it run but its template, in a sandbox."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import rectune.bundle.parts as parts
from rectune.bundle.bundle import Bundle
from rectune.bundle.files import ABOUT
from rectune.bundle.hub import is_repository
from rectune.bundle.manifest import check_files
from rectune.bundle.names import known, read_call_of
from rectune.decoding.language_model import LanguageModelRanker, Ranker
from rectune.decoding.trie import FILE as TRIE
from rectune.decoding.trie import Trie, build_trie
from rectune.indexing.item_index import ItemIndex
from rectune.log.split import evenly
from rectune.methods.contract import Loading
from rectune.methods.language_model import as_ranker
from rectune.methods.probe import PROBE, ROUNDED, probed, refuse
from rectune.model.adapters import fold_adapter, load_tuned
from rectune.model.load import load_plain, load_tokenizer
from rectune.model.settings import ModelSettings, model_settings
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Template
from rectune.recipe.calls import Call
from rectune.recipe.load import Recipe
from rectune.tasks.asked_histories import Outside, event_less
from rectune.tasks.views import ItemViews
from rectune.vectors.item_vectors import ItemVectors, load_fitted

COMPARED = 200  # items whose names are encoded once more
MOST = 100_000  # beams, and items of a history
ATTENTION = (
    None,
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flex_attention",
)  # transformers fetches others as code
OWN = {
    "dtype",
    "prompt_form",
    "attn_implementation",
}  # keys of `model` beside whole weights; beside an adapter its base is named, too
BASE = {
    "model_name_or_path",
    "model_revision",
    "use_peft",
    "load_in_8bit",
    "load_in_4bit",
    "bnb_4bit_quant_type",
    "use_bnb_nested_quant",
}


def read_bundle(
    folder: Path, *, device: str = "auto", dtype: str | None = None, commit: str | None = None, name: str | None = None
) -> Bundle:
    """A bundle's folder. Raises ValueError, FileNotFoundError or MemoryError with one line, whatever is wrong with it."""
    check_files(folder)
    with as_written(folder):
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return _read(folder, about, device, dtype, commit, name or str(folder))


@contextmanager
def as_written(folder: Path) -> Iterator[None]:
    """Tell in one line whatever fails when the parts of a bundle are read: somebody may have written them by hand."""
    try:
        yield
    except (FileNotFoundError, MemoryError):
        raise
    except KeyError as error:
        raise ValueError(f"{folder}: it does not say `{error.args[0]}`. Export the run anew.") from None
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        ours = isinstance(error, ValueError) and (str(folder) in said or said.startswith("`"))
        raise ValueError(
            said if ours else f"{folder}: it is not as it was written ({said}). Fetch or export it anew."
        ) from None


def _read(folder: Path, about: dict[str, Any], device: str, dtype: str | None, commit: str | None, name: str) -> Bundle:
    asked = about["asked"]
    method = known("stages", asked["method"], f"`{ABOUT}`, `method`")
    template = parts.read_template(folder, about)
    rank, task = parts.read_rank(asked, template.name), parts.read_task(asked, template)
    lines = parts.read_rows(folder)
    outside = _outside(folder, asked, lines)
    sources = tuple(_source(written) for written in asked["vectors"])
    prior, weight = parts.read_prior(folder, about)
    index, settings = ItemIndex.load(folder / parts.INDEX), _settings(folder, about, device, dtype)
    encoder = Encoder(
        load_tokenizer(folder), index.vocabulary, form=settings.prompt_form, frame=parts.read_frame(asked)
    )
    trie = Trie.load(folder / TRIE) if about["kind"] == "item" and (folder / TRIE).exists() else None
    split = event_less(outside.items)
    _check_size(folder, "beams", rank.beams)
    _check_fit(folder, index, trie, lines, fixed_length=not template.end)
    if trie is not None:
        _check_tokenizer(folder, encoder, template, rank.wording, ItemViews(split, index), trie)
    base = about["base"].get("name", "the base")
    loading = Loading(settings, folder, base, split, index, encoder, template, rank, trie, int(asked["seed"]))
    if hasattr(method, "export"):
        ranker = method.load(loading, folder)
    elif _is_adapter(folder):
        ranker = as_ranker(
            loading, fold_adapter(load_tuned(settings, folder, folder, index, seed=loading.seed), settings)
        )
    else:
        ranker = as_ranker(loading, load_plain(settings, folder))
    _check_probe(folder, ranker)
    vectors = folder / parts.VECTORS
    return Bundle(
        name=name, kind=about["kind"], chooses=bool(about.get("chooses")), outside=outside, index=index, encoder=encoder, template=template, rank=rank, trie=trie, task=task,
        ranker=ranker, vectors=ItemVectors.load(vectors) if task.reads_vectors else None, prior=prior, prior_weight=weight, sources=sources,
        fitted=load_fitted(vectors, len(sources)), commit=commit, report=parts.page_in(folder), recipe=str(about["run"]["recipe"]),
    )  # fmt: skip


def _check_probe(folder: Path, ranker: Ranker) -> None:
    """Raise ValueError where the loaded model gives other logits than were written, by more than another machine explains: weights are missing, or
    are those of another."""
    if not isinstance(ranker, LanguageModelRanker) or not (folder / PROBE).exists():
        return
    refuse(probed(ranker.model, folder), ROUNDED, f"loading {folder}")


def _outside(folder: Path, asked: dict[str, Any], lines: list[dict[str, Any]]) -> Outside:
    """The items, and what is known of histories."""
    longest, ratings = asked["longest_history"], [float(rating) for rating in asked["ratings"]]
    _check_size(folder, "longest_history", longest)
    if not all(map(math.isfinite, ratings)) or ratings != sorted(ratings):
        raise ValueError(f"{folder}: its `ratings` are no numbers in their order.")
    return Outside(parts.items_of(folder, lines, list(asked["columns"])), longest, tuple(ratings))


def _check_size(folder: Path, key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise ValueError(f"{folder}: its `{key}` is {str(value)[:40]}, and it must be from 1 to {MOST:,}.")


def _source(written: dict[str, Any]) -> Call:
    """A source of vectors, or what refuses in its place where it read something of the machine which made the bundle."""
    if not written.get("left"):
        return read_call_of("vectors", written, f"`{ABOUT}`, `vectors`")

    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError(f"`{written['call']}` reads `{written['left'][0]}`, which is not part of a bundle")

    return Call("vectors", refuse, {}, known=False)


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists()


def _settings(folder: Path, about: dict[str, Any], device: str, dtype: str | None) -> ModelSettings:
    """How the model is loaded: the whole weights of the folder, or its adapter on the base that it names. Raises ValueError for a key of others, and for what
    would fetch code."""
    model, may = dict(about["model"]), OWN | (BASE if _is_adapter(folder) else set())
    config = (
        json.loads((folder / "config.json").read_text(encoding="utf-8")) if (folder / "config.json").exists() else {}
    )
    for strange in model.keys() - may:
        raise ValueError(f"{folder}: `model.{strange}` is no key of a bundle.")
    asked = {
        "attn_implementation": model.get("attn_implementation"),
        **{k: v for k, v in config.items() if "attn_implementation" in k},
    }
    for key, value in asked.items():
        if value not in ATTENTION:
            raise ValueError(
                f"{folder}: `{key}` is {str(value)[:60]!r}, which transformers fetches as code. Nothing was run."
            )
    if config.get("auto_map"):
        raise ValueError(f"{folder}: its model brings code of its own (`auto_map`), which is not run.")
    if _is_adapter(folder):
        named = str(model["model_name_or_path"])
        if not is_repository(named) or Path(named).exists():
            raise ValueError(f"{folder}: its adapter's base is {named[:100]!r}, which is no repository of the Hub.")
    else:
        model["model_name_or_path"] = str(folder)
    if dtype is not None:
        model["dtype"] = dtype
    return model_settings(Recipe("rectune.json", {"model": {**model, "device": device}}))


def _check_fit(
    folder: Path, index: ItemIndex, trie: Trie | None, lines: list[dict[str, Any]], *, fixed_length: bool
) -> None:
    """Raise ValueError where catalogue, index and trie are not of one run: the trie is that of the catalogue's `tokens`."""
    codes = index.codes
    known = not codes.size or -1 <= codes.min() <= codes.max() < max(len(index.vocabulary), 1)
    if len(index) != len(lines) or not known:
        raise ValueError(
            f"{folder}: it has {len(lines)} items, and names that are not theirs. Its parts are not of one run."
        )
    if trie is None:
        return
    whole = build_trie([[int(token) for token in line["tokens"]] for line in lines], fixed_length=fixed_length)
    for name in ("codes", "first", "levels", "leaves", "items"):
        if not np.array_equal(getattr(whole, name), getattr(trie, name)):
            raise ValueError(f"{folder}: its {TRIE} is not the one of its items. Its parts are not of one run.")
    if not all(np.array_equal(one, other) for one, other in zip(whole.tokens, trie.tokens, strict=True)):
        raise ValueError(f"{folder}: its {TRIE} is not the one of its items. Its parts are not of one run.")


def _check_tokenizer(
    folder: Path, encoder: Encoder, template: Template, wording: int, view: ItemViews, trie: Trie
) -> None:
    """Raise ValueError where the tokenizer writes items otherwise than the trie holds them."""
    for item in evenly(trie.n_items, COMPARED):
        name = encoder.completion_ids(template.completion(wording, {"target": view(int(item))}), end=template.end)
        leaf = trie.walk(name)
        if leaf < 0 or int(trie.item_of(np.array([leaf]))[0]) != int(item):
            raise ValueError(
                f"{folder}: its tokenizer writes the name of {view.called(int(item))} in other tokens than the trie holds; it is that of "
                "another base."
            )
