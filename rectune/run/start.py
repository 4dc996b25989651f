"""What can be known before anything is built: whether the base is there and fits, and whether the run folder can be written."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rectune.decoding.language_model import positions_of
from rectune.model.load import config_of, kind_of, tokenizer_of
from rectune.model.settings import ModelSettings, has_bfloat16, load_options, pick_device
from rectune.run.asked import Asked, check_methods
from rectune.run.folder import RunFolder, Stage
from rectune.run.run import Run
from rectune.runtime.checkpoints import check_checkpoint
from rectune.runtime.files import check_disk
from rectune.runtime.near import near
from rectune.runtime.text_files import first_line

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def check_start(run: Run, *, rebuild: Collection[str] = ()) -> None:
    """Raise ValueError or OSError, naming the key, for what would stop the run later: a base that is not there or does not fit, a folder
    that cannot be written, a disk without room for the tuned models. Nothing is asked for that a finished box no longer needs."""
    check_writable(run.folder.path)
    trainings = [training.name for training in run.asked.trainings]
    wanted = trainings if rebuild else [name for name in trainings if not is_there(run, name)]
    if not wanted and (not rebuild and is_there(run, "base")):
        return
    config = check_base(run.asked)
    check_weights(run.asked.model)
    if wanted and not run.asked.model.library.use_peft:
        size = len(wanted) * size_of(run.asked.model, config)
        check_disk(run.folder.path, size, "the weights of the tuned model", "--output_dir")


def check_preview(run: Run) -> None:
    """Raise what `check_start` does where a preview builds the base: config and tokenizer are read, weights are not."""
    if not is_there(run, "base"):
        check_base(run.asked)


def is_there(run: Run, name: str) -> bool:
    """Whether a box of the line lies in the run folder; nothing is built."""
    return place_in(run.folder, run, name).folder.is_dir()


def place_in(folder: RunFolder, run: Run, name: str) -> Stage:
    """Where a box of the line lies or would lie, by what is asked alone."""
    box = next(box for box in run.line if box.name == name)
    return folder.place(name, box.keys(), [place_in(folder, run, need) for need in box.needs])


# ------------------------------------------------------------------------------------------------------------- the base


def check_base(asked: Asked) -> Any:
    """The config of the base. Raises ValueError or FileNotFoundError where it or its tokenizer is not there, transformers cannot make the
    model, a method does not train its kind, or it has too few positions."""
    settings = asked.model
    if settings.from_scratch is not None:
        config = check_made(asked)
    else:
        _refuse_unreachable(settings)
        tokenizer_of(settings)
        config = _named_config(settings)
    check_methods(asked, config)
    _check_positions(asked, config)
    if settings.library.dtype == "bfloat16" and pick_device(settings).type == "cpu" and not has_bfloat16():
        warnings.warn(
            "`model.dtype`: this CPU has no instructions for bfloat16, so it is slow in it; `--model.dtype float32` is faster.",
            stacklevel=2,
        )
    return config


def check_made(asked: Asked) -> Any:
    """The config of a model from scratch, which is made without memory and run on two tokens. Raises ValueError with what transformers says
    where that fails, as sizes do that don't divide each other."""
    import torch

    fields = asked.model.from_scratch
    where = asked.where("model.from_scratch")
    tokens = SimpleNamespace(pad_token_id=0, bos_token_id=1, eos_token_id=2)
    try:
        config = config_of(fields, tokens, vocabulary=asked.model.text_vocab_size)
        with torch.device("meta"):
            model = kind_of(config).from_config(config)
            ids = torch.zeros((1, 2), dtype=torch.long)
            given = {"decoder_input_ids": ids} if config.is_encoder_decoder else {}
            with torch.no_grad():
                model(input_ids=ids, **given)
    except Exception as error:  # whatever a library raises at sizes that it does not check
        if isinstance(error, NotImplementedError) or "meta" in str(error).lower():
            return config  # it was made; that it cannot run without memory says nothing of it
        raise ValueError(
            f"{where}: transformers can make no `{fields['model_type']}` that runs with these fields ({' '.join(str(error).split())[:200]}). "
            "Mend the sizes: the width is a multiple of the heads, and the heads one of the key-value heads."
        ) from None
    return config


def _refuse_unreachable(settings: ModelSettings) -> None:
    """Ask the Hub once where the cache holds nothing of the base: the library asks for a minute before it gives up."""
    name = settings.library.model_name_or_path
    if Path(name).exists() or not HUB_NAME.fullmatch(name):
        return
    if (told := _not_to_be_had(settings, ("config.json",))) is not None:
        raise FileNotFoundError(
            f"`model.model_name_or_path`: no tokenizer could be loaded from `{name}` (it is not in the cache, and the Hub says: "
            f"{told}). Give a local folder, or a model of the Hub with a network connection."
        )


def _not_to_be_had(settings: ModelSettings, files: Sequence[str]) -> str | None:
    """Why none of these files of a base is in the cache and the Hub has no such base for us, or None where one of both is so."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    name, revision = settings.library.model_name_or_path, settings.library.model_revision
    if any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in files):
        return None
    try:
        HfApi().model_info(name, revision=revision, timeout=20)
    except Exception as error:  # no network, offline mode, no such model, no right to it: each is the Hub's own kind
        return first_line(error)[:200]
    return None


def _named_config(settings: ModelSettings) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    name = settings.library.model_name_or_path
    try:
        return AutoConfig.from_pretrained(name, revision=settings.library.model_revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        kind = str(error).partition("has model type `")[2].partition("`")[0]
        if kind:
            raise ValueError(
                f"`model.model_name_or_path`: `{name}` has the model type `{kind}`, which this transformers does not know."
                f"{near(kind, CONFIG_MAPPING.keys())}"
            ) from None
        raise FileNotFoundError(
            f"`model.model_name_or_path`: the base `{name}` could not be loaded: no config was found ({first_line(error)[:200]}). Give a "
            "local folder, or a model of the Hub with a network connection."
        ) from None


def _check_positions(asked: Asked, config: Any) -> None:
    limit = positions_of(SimpleNamespace(config=config))
    for training in asked.trainings:
        length = vars(training.config()).get("max_length")
        if limit is not None and length is not None and length > limit:
            raise ValueError(
                f"{asked.where(f'stages.{training.number}.max_length')}: `max_length` is {length}, but the model has positions for {limit} "
                "tokens. Lower it."
            )


def check_weights(settings: ModelSettings) -> None:
    """Raise FileNotFoundError where the weights of a named base are neither in its folder nor in the cache nor on the Hub."""
    name = settings.library.model_name_or_path
    if settings.makes_weights:
        return
    if Path(name).is_dir():
        check_checkpoint(name, key="model.model_name_or_path", parts=("weights",))
        return
    if (told := _not_to_be_had(settings, WEIGHTS)) is not None:
        raise FileNotFoundError(
            f"`model.model_name_or_path`: the base `{name}` could not be loaded: its weights are not in the cache, and the Hub cannot be asked "
            f"({told}). Give a local folder, or connect to the network."
        )


# ----------------------------------------------------------------------------------------------------------- the folder


def check_writable(folder: Path) -> None:
    """Raise OSError where a run folder, or the first one above it that is there, cannot be written."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
        raise OSError(f"`output_dir`: {there} cannot be written. Give another folder with --output_dir.")


def size_of(settings: ModelSettings, config: Any) -> int:
    """Bytes of the whole model on disk, in the dtype in which it is tuned."""
    import torch
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights():
        model = kind_of(config).from_config(config)
    model.tie_weights()  # which a model made without initialisation leaves undone
    parameters = {id(p): p.numel() for p in model.parameters()}
    dtype = load_options(settings)["dtype"]
    named = config.dtype if dtype == "auto" else getattr(torch, str(dtype), None)
    width = named.itemsize if isinstance(named, torch.dtype) else 4
    return int(sum(parameters.values())) * width
