"""The files of an exported folder: weights and generation settings, items, what is known of the run, and the place itself."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rectune
from rectune.bundle.parts import asked_of
from rectune.decoding.language_model import answer_ids
from rectune.indexing.item_index import ItemIndex
from rectune.methods.probe import PROBE
from rectune.model.settings import base_called, named_dtype, quantization_config
from rectune.prompts.template import Template
from rectune.run.run import Run
from rectune.tasks.views import ItemViews

ABOUT, ITEMS, TEMPLATE = "rectune.json", "items.jsonl", "template.jinja"
LIBRARIES = ("torch", "transformers", "tokenizers", "trl", "peft", "bitsandbytes")


# ------------------------------------------------------------------------------------------------------------ the place


def check_place(place: Path, run: Run) -> None:
    """Raise ValueError when `place` may not be written: it is something else, another run's export, or inside the stages."""
    if run.folder.path / "stages" in place.parents or place == run.folder.path / "templates":
        raise ValueError(f"`--to`: {place} belongs to the run itself. Give a folder of its own.")
    for above in (place, *place.parents):
        if above.exists() and not above.is_dir():
            raise ValueError(f"`--to`: {above} is a file, not a folder.")
    there = next(
        above for above in place.parents if above.exists()
    )  # the export is written beside its place and renamed
    if not os.access(there, os.W_OK | os.X_OK):
        raise OSError(f"`--to`: {there} cannot be written. Give another folder with --to.")
    if not place.is_dir() or not any(place.iterdir()):
        return
    other = exported_run(place)
    if other is None:
        raise ValueError(
            f"`--to`: {place} exists and is not an export; nothing in it is overwritten. Give another folder."
        )
    if other != run_of(run) and run.folder.path not in place.parents:
        raise ValueError(
            f"`--to`: {place} is an export of another run (recipe `{other.get('recipe')}`, stage {other.get('fingerprint')}). "
            "Remove it or give another folder."
        )


def exported_run(place: Path) -> dict[str, Any] | None:
    """Which run a folder is an export of, or None where it is none."""
    try:
        about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    run = about.get("run") if isinstance(about, dict) else None
    return run if isinstance(run, dict) and "fingerprint" in run else None


def run_of(run: Run) -> dict[str, str]:
    """What tells a run from others: its recipe's name and the fingerprint of its last training stage."""
    return {"recipe": run.asked.recipe.name, "fingerprint": run.tuned.fingerprint}


def put(work: Path, place: Path) -> None:
    """Move a finished folder to its place; an older export there goes once the new one stands."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    os.replace(work, place)
    shutil.rmtree(old, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------------ the files


def write_model(model: Any, run: Run, folder: Path, *, longest: int) -> None:
    """Write weights, config, tokenizer and generation settings. `longest`: how many tokens the model may write."""
    model.generation_config = generation_settings(model, run, longest=longest)
    model.save_pretrained(folder)
    run.encoder.tokenizer.save_pretrained(folder)


def generation_settings(model: Any, run: Run, *, longest: int) -> Any:
    """A beam search for names of at most `longest` tokens, scored by their sum; nothing comes from the base's own settings."""
    from transformers import GenerationConfig

    rank, lists, tokenizer = run.asked.rank, run.rows.kind == "item", run.encoder.tokenizer
    beams: dict[str, Any] = {
        "num_beams": max(rank.beams, 2),  # one beam is greedy search, which returns no scores
        "length_penalty": 0.0, "early_stopping": False, "renormalize_logits": rank.scores == "catalogue",
    }  # fmt: skip
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=longest,
        eos_token_id=run.encoder.end_id if run.asked.template.end or not lists else None,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id if model.config.is_encoder_decoder else None,
        use_cache=True,
        **(beams if lists else {}),
    )


def check_adapter(run: Run) -> None:
    """Raise ValueError where a run has no adapter that could stand alone."""
    named = run.asked.model.library.model_name_or_path
    if not (run.tuned.folder / "model" / "adapter_config.json").exists():
        raise ValueError("`--adapter-only`: this run tuned all weights and has no adapter. Leave the option out.")
    if named is None or Path(named).exists() or run.asked.model.random_weights:
        raise ValueError(
            f"`--adapter-only`: the base is `{base_called(run.asked.model)}`, which is not on the Hub, so others could not load the adapter. Leave the option out."
        )


def keep_adapter(run: Run, folder: Path) -> None:
    """Put the adapter in the place of whole weights."""
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    tuned = run.tuned.folder / "model"
    for name in ("adapter_config.json", "adapter_model.safetensors", PROBE):
        shutil.copyfile(tuned / name, folder / name)


def model_of(run: Run, *, adapter_only: bool) -> dict[str, Any]:
    """How a bundle's model is loaded: keys of the section `model`."""
    settings, dtype = run.asked.model, run.asked.model.library.dtype
    if settings.makes_weights and dtype in (None, "auto"):
        dtype = "float32"
    keys: dict[str, Any] = {
        "dtype": named_dtype(settings) if quantization_config(settings) is not None else dtype,
        "prompt_form": settings.prompt_form,
    }
    if settings.library.attn_implementation:
        keys["attn_implementation"] = settings.library.attn_implementation
    if not adapter_only:
        return keys
    kept = (
        "model_name_or_path",
        "model_revision",
        "dtype",
        "use_peft",
        "load_in_8bit",
        "load_in_4bit",
        "bnb_4bit_quant_type",
        "use_bnb_nested_quant",
    )
    return {**keys, **{name: getattr(settings.library, name) for name in kept}}


def write_items(run: Run, folder: Path) -> tuple[dict[str, int], int]:
    """Write the items, one line each; returns how many there are and the longest name in tokens (0 for a Yes/No run)."""
    total = longest = 0
    with (folder / ITEMS).open("w", encoding="utf-8") as file:
        for entry in items_of(run):
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            total, longest = total + 1, max(longest, len(entry.get("tokens", ())))
    return {"total": total, "added": run.asked.added.items.height if run.asked.added else 0}, longest


def items_of(run: Run) -> Iterator[dict[str, Any]]:
    """One entry an item: `item_id`, `title` and those other columns that the template speaks of, as prompts show them; `name`,
    its name in the index; where the run lists items, `tokens`, the ids that the model writes for it, end token included;
    and `added` for what came after the tuning."""
    view, encoder, template = ItemViews(run.split, run.index), run.encoder, run.asked.template
    ids = run.log.items["item_id"].to_list()
    first_added = len(ids) - (run.asked.added.items.height if run.asked.added else 0)
    columns = shown_columns(template, run.log.items.columns)
    for item, item_id in enumerate(ids):
        seen = view(item)
        entry = {
            "item_id": item_id,
            **{name: seen[name] for name in columns},
            "name": plain_name(run.index, item, seen),
        }
        if run.rows.kind == "item":
            completion = template.completion(run.asked.rank.wording, {"target": seen})
            entry["tokens"] = encoder.completion_ids(completion, end=template.end)
        yield {**entry, "added": True} if item >= first_added else entry


def shown_columns(template: Template, columns: list[str]) -> list[str]:
    """`title`, and the columns whose names stand in the template."""
    spoken = set(re.findall(r"\w+", template.source))
    return [name for name in columns if name == "title" or (name in spoken and name not in ("item_id", "name"))]


def plain_name(index: ItemIndex, item: int, seen: dict[str, Any]) -> str:
    """An item's name as the text of its tokens, or its title where it has none."""
    return "".join(index.tokens(item)) or str(seen["name"])


def answers_of(run: Run) -> list[dict[str, Any]]:
    """The answers of a run in their order (No first): what they stand for and the ids that the model writes, with the end of text
    where one begins another."""
    example, template, wording = run.rows.variables(0), run.asked.template, run.asked.rank.wording
    said = [template.completion(wording, {**example, **answer}) for answer in run.rows.answers]
    ids = answer_ids(run.encoder, template, said)
    return [{"means": answer, "tokens": tokens} for answer, tokens in zip(run.rows.answers, ids, strict=True)]


def about_run(run: Run, *, room: int | None) -> dict[str, Any]:
    """What `rectune.json` says of the run and of its prompts. `room`: the most tokens of a prompt."""
    rank, encoder, library = run.asked.rank, run.encoder, run.asked.model.library
    named = library.model_name_or_path
    on_hub = named if named and not Path(named).is_absolute() and not Path(named).exists() else None
    base = (
        {"name": base_called(run.asked.model), "revision": library.model_revision, "on_hub": on_hub}
        if named and not run.asked.model.random_weights
        else None
    )
    if run.asked.earlier is not None and run.asked.earlier.bundle.exists():
        base = run.asked.earlier.about.get("base", base)  # what the earlier run was tuned from
    longest = run.split.notes.get("max_history") or int(max((run.split.test.stop - run.split.test.start).max(), 1))
    return {
        "kind": run.rows.kind,
        "chooses": run.rows.judged == "choice",
        "run": run_of(run),
        "base": base or {"from_scratch": run.asked.model.from_scratch or {"architecture_of": base_called(run.asked.model)}, "on_hub": None},
        "rates": bool(run.rows.values), "codes": bool(run.index.codes.shape[1] > 1),
        "rank": {
            "template": run.asked.template.name, "template_hash": run.asked.template.hash, "wording": rank.wording,
            "scores": rank.scores, "beams": rank.beams, "k": rank.k,
        },
        "prompt": {
            "form": encoder.form, "before": encoder.frame.before, "between": encoder.frame.between, "max_history": longest, "max_tokens": room,
        },
        "asked": asked_of(run),
        "versions": {"rectune": rectune.__version__, **{name: importlib.metadata.version(name) for name in LIBRARIES}},
    }  # fmt: skip
