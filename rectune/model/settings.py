"""The section `model` of a recipe, and what it says of loading: device, numbers of 4 or 8 bits, fingerprints."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rectune.prompts.encoder import Form
from rectune.recipe.library import library_config
from rectune.recipe.load import Recipe
from rectune.runtime.device import device_of
from rectune.runtime.files import stamp
from rectune.runtime.near import near

OWN_KEYS = ("from_scratch", "text_vocab_size", "prompt_form", "device")


@dataclass(frozen=True)
class ModelSettings:
    """The section `model`: TRL's ModelConfig in `library`, and four keys of our own.

    `from_scratch`: a transformers config (`model_type` and its fields) instead of a checkpoint; its tokenizer is
    trained on the rendered examples with at most `text_vocab_size` tokens. `prompt_form`: see `Encoder`.
    `device`: 'auto', 'cpu' or 'cuda'.
    """

    library: Any
    from_scratch: dict[str, Any] | None
    text_vocab_size: int
    prompt_form: Form
    device: str


def model_settings(recipe: Recipe) -> ModelSettings:
    """Check and return the section `model`. Raises TypeError or ValueError naming the key."""
    from trl import ModelConfig

    section = dict(recipe.settings["model"])
    own = {key: section.pop(key, None) for key in OWN_KEYS}
    library = library_config(ModelConfig, section, recipe, "model", also=OWN_KEYS)
    if (own["from_scratch"] is None) == (library.model_name_or_path is None):
        raise ValueError(f"{recipe.where('model')}: give either `model_name_or_path` or `from_scratch`.")
    if own["prompt_form"] not in (None, "auto", "chat", "plain"):
        raise ValueError(f"{recipe.where('model.prompt_form')}: got {own['prompt_form']!r}; use auto, chat or plain.")
    device = own["device"] or "auto"
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"{recipe.where('model.device')}: got {device!r}; use auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"{recipe.where('model.device')}: cuda was asked for, but torch sees no CUDA device. Use auto or cpu."
        )
    if own["from_scratch"] is not None:
        _check_from_scratch(own["from_scratch"], recipe)
    size = own["text_vocab_size"] if own["text_vocab_size"] is not None else 4096
    if not isinstance(size, int) or size < 260:
        raise ValueError(
            f"{recipe.where('model.text_vocab_size')}: got {size!r}; it must be at least 260 (256 bytes and 4 more)."
        )
    return ModelSettings(library, own["from_scratch"], size, own["prompt_form"] or "auto", device)


def _check_from_scratch(fields: Any, recipe: Recipe) -> None:
    from transformers import CONFIG_MAPPING

    where = recipe.where("model.from_scratch")
    if not isinstance(fields, dict) or "model_type" not in fields:
        raise TypeError(f"{where}: it must be a mapping with `model_type` and the fields of that model's config.")
    kind = fields["model_type"]
    if kind not in CONFIG_MAPPING:
        raise ValueError(
            f"{recipe.where('model.from_scratch.model_type')}: unknown model type {kind!r}.{near(str(kind), CONFIG_MAPPING.keys())}"
        )
    known = set(inspect.signature(CONFIG_MAPPING[kind].__init__).parameters) | {"model_type"}
    for key in fields:
        if key not in known:
            raise ValueError(
                f"{recipe.where(f'model.from_scratch.{key}')}: `{kind}` has no such field.{near(key, known)}"
            )


def pick_device(settings: ModelSettings) -> torch.device:
    """The device that `model.device` means on this machine (one GPU a process)."""
    return device_of(settings.device)  # type: ignore[no-any-return]


def load_options(settings: ModelSettings) -> dict[str, Any]:
    """What `from_pretrained` is given: dtype, attention, quantisation."""
    library = settings.library
    options: dict[str, Any] = {"dtype": library.dtype or "auto"}
    if settings.from_scratch is not None and library.dtype in (None, "auto"):
        options["dtype"] = "float32"
    if library.attn_implementation:
        options["attn_implementation"] = library.attn_implementation
    quantization = quantization_config(settings)
    if quantization is not None:
        options.update(quantization_config=quantization, device_map={"": pick_device(settings)})
    return options


def quantization_config(settings: ModelSettings) -> Any:
    """The bitsandbytes configuration that the section `model` asks for, or None. 4-bit layers compute in `dtype`, in bfloat16
    where the recipe names none."""
    from trl import get_quantization_config

    return get_quantization_config(dataclasses.replace(settings.library, dtype=named_dtype(settings)))


def named_dtype(settings: ModelSettings) -> str:
    """The dtype that the section names, bfloat16 where it names none."""
    dtype = settings.library.dtype
    return "bfloat16" if dtype in (None, "auto") else str(dtype)


def unquantised(settings: ModelSettings) -> ModelSettings:
    """The same section with a base in the recipe's `dtype` (bfloat16 where it names none) instead of 4 or 8 bits."""
    if quantization_config(settings) is None:
        return settings
    library = dataclasses.replace(settings.library, load_in_4bit=False, load_in_8bit=False, dtype=named_dtype(settings))
    return dataclasses.replace(settings, library=library)


def base_identity(settings: ModelSettings) -> dict[str, Any]:
    """What names the base in fingerprints: its name, revision and, of a local folder, its files; or the config it is made from."""
    if settings.from_scratch is not None:
        return {"from_scratch": settings.from_scratch, "text_vocab_size": settings.text_vocab_size}
    name = settings.library.model_name_or_path
    identity: dict[str, Any] = {"name": name, "revision": settings.library.model_revision}
    if Path(name).is_dir():
        identity["files"] = stamp(Path(name))
    return identity


def settings_for_fingerprint(settings: ModelSettings) -> dict[str, Any]:
    """The section `model` as plain data."""
    plain = {
        k: v for k, v in dataclasses.asdict(settings.library).items() if isinstance(v, str | int | float | bool | list)
    }
    return {
        "library": plain,
        "from_scratch": settings.from_scratch,
        "form": settings.prompt_form,
        "vocab": settings.text_vocab_size,
    }
