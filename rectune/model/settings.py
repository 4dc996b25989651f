"""The section `model` of a recipe, and what it says of loading: device, numbers of 4 or 8 bits, fingerprints."""

from __future__ import annotations

import dataclasses
import inspect
import platform
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rectune.prompts.encoder import Form
from rectune.recipe.checking import check_type
from rectune.recipe.library import ABOVE_0, FROM_0, FROM_1, SHARE, check_range, library_config
from rectune.recipe.load import Recipe
from rectune.runtime.device import device_of
from rectune.runtime.files import stamp
from rectune.runtime.near import near, shown

# Key of TRL's ModelConfig -> who reads it; none is refused.
READ = {
    "model_name_or_path": "the base: a local folder, or a model of the Hub",
    "model_revision": "of a base of the Hub",
    "dtype": "of the base's weights; bfloat16 for what a quantised base computes in where it is not given",
    "attn_implementation": "transformers",
    "use_peft": "an adapter (LoRA) is tuned instead of all weights; new tokens are always trained",
    **dict.fromkeys(("lora_r", "lora_alpha", "lora_dropout", "lora_target_parameters", "use_rslora", "use_dora"), "PEFT's LoraConfig"),
    "lora_target_modules": "PEFT's LoraConfig; all linear layers where it is not given",
    "lora_modules_to_save": "PEFT's LoraConfig; refused where there are new tokens",
    "lora_task_type": "PEFT's LoraConfig; SEQ_2_SEQ_LM for encoder-decoders",
    **dict.fromkeys(("load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage"), "bitsandbytes"),
}  # fmt: skip
OWN = {
    "from_scratch": "a transformers config (`model_type` and its fields) instead of a base",
    "text_vocab_size": "most tokens of the tokenizer that is made with a model from scratch",
    "random_weights": "the named base with weights drawn anew from `seed`: what its pre-training is worth",
    "prompt_form": "auto, chat or plain",
    "device": "auto, cpu or cuda",
}
OWN_KEYS = tuple(OWN)
RANGES = {"lora_r": FROM_1, "lora_alpha": ABOVE_0, "lora_dropout": SHARE}
# Fields of a transformers config that count something there must be at least one of.
SIZE = re.compile(r"(num_|n_|d_)\w+|\w+_(size|layers|heads|dim|positions|embeddings)")
MADE = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")
MAY_BE_0 = re.compile(r"chunk_size\w+|\w*(expert|shared|dense|window|dropout|pdrop)\w*|\w+_ids?")


@dataclass(frozen=True)
class ModelSettings:
    """The section `model`: TRL's ModelConfig in `library`, and five keys of our own.

    `from_scratch`: a transformers config (`model_type` and its fields) instead of a checkpoint; its tokenizer is
    trained on the rendered examples with at most `text_vocab_size` tokens. `random_weights`: of a named base only its
    config and its tokenizer are used. `prompt_form`: see `Encoder`.
    `device`: 'auto', 'cpu' or 'cuda'.
    """

    library: Any
    from_scratch: dict[str, Any] | None
    text_vocab_size: int
    prompt_form: Form
    device: str
    random_weights: bool = False

    @property
    def makes_weights(self) -> bool:
        """Whether the base's weights are made by the run, not loaded."""
        return self.from_scratch is not None or self.random_weights


def model_settings(recipe: Recipe) -> ModelSettings:
    """Check and return the section `model`. Raises TypeError or ValueError naming the key."""
    from trl import ModelConfig

    section = dict(recipe.settings["model"])
    own = {key: section.pop(key, None) for key in OWN_KEYS}
    library = library_config(ModelConfig, section, recipe, "model", also=OWN_KEYS, ranges=RANGES)
    if (own["from_scratch"] is None) == (library.model_name_or_path is None):
        raise ValueError(f"{recipe.where('model')}: give either `model_name_or_path` or `from_scratch`.")
    if own["prompt_form"] not in (None, "auto", "chat", "plain"):
        raise ValueError(
            f"{recipe.where('model.prompt_form')}: got {shown(own['prompt_form'])}; use auto, chat or plain."
        )
    if own["random_weights"] not in (None, True, False):
        raise TypeError(
            f"{recipe.where('model.random_weights')}: got {shown(own['random_weights'])}; use true or false."
        )
    if own["random_weights"] and own["from_scratch"] is not None:
        raise ValueError(
            f"{recipe.where('model.random_weights')}: a model `from_scratch` has random weights anyway. Leave the key out."
        )
    device = own["device"] or "auto"
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"{recipe.where('model.device')}: got {shown(device)}; use auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"{recipe.where('model.device')}: cuda was asked for, but torch sees no CUDA device. Use auto or cpu."
        )
    if library.dtype == "bfloat16" and device_of(device).type == "cuda" and not has_bfloat16():
        raise ValueError(
            f"{recipe.where('model.dtype')}: {torch.cuda.get_device_name()} has no bfloat16. Use float32, or float16 with `stages.0.fp16 true`."
        )
    if own["from_scratch"] is not None:
        _check_from_scratch(own["from_scratch"], recipe)
    size = own["text_vocab_size"] if own["text_vocab_size"] is not None else 4096
    if not isinstance(size, int) or isinstance(size, bool) or size < 260:
        raise ValueError(
            f"{recipe.where('model.text_vocab_size')}: got {shown(size)}; it must be at least 260 (256 bytes and 4 more)."
        )
    return ModelSettings(
        library, own["from_scratch"], size, own["prompt_form"] or "auto", device, bool(own["random_weights"])
    )


def has_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16 by itself (from Ampere on), or, without a GPU, the CPU does."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if platform.machine() not in ("x86_64", "AMD64"):
        return True  # not known; ARM's newer cores do
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _check_from_scratch(fields: Any, recipe: Recipe) -> None:
    from transformers import CONFIG_MAPPING

    where = recipe.where("model.from_scratch")
    if not isinstance(fields, dict) or "model_type" not in fields:
        raise TypeError(f"{where}: it must be a mapping with `model_type` and the fields of that model's config.")
    kind = fields["model_type"]
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ValueError(
            f"{recipe.where('model.from_scratch.model_type')}: unknown model type {shown(kind)}.{near(str(kind), CONFIG_MAPPING.keys())}"
        )
    parameters = inspect.signature(CONFIG_MAPPING[kind].__init__).parameters
    known = set(parameters) - {"self"} | {"model_type"}
    for key, value in fields.items():
        place = recipe.where(f"model.from_scratch.{key}")
        if key not in known:
            raise ValueError(f"{place}: `{kind}` has no such field.{near(str(key), known)}")
        if key in MADE:
            raise ValueError(f"{place}: it comes from the tokenizer, which is made with the model. Leave it out.")
        if key != "model_type":
            _check_field(key, value, parameters[key].annotation, place)


def _check_field(key: str, value: Any, annotation: Any, where: str) -> None:
    """A field of a transformers config, as far as its annotation is one of plain kinds."""
    if _plain(annotation):
        check_type(value, annotation, where)
    if isinstance(value, int) and not isinstance(value, bool) and not key.endswith("_id"):
        check_range(value, FROM_1 if SIZE.fullmatch(key) and not MAY_BE_0.fullmatch(key) else FROM_0, where)


def _plain(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list):
        return all(_plain(part) for part in typing.get_args(annotation))
    return annotation in (int, float, bool, str, type(None))


def pick_device(settings: ModelSettings) -> torch.device:
    """The device that `model.device` means on this machine (one GPU a process)."""
    return device_of(settings.device)  # type: ignore[no-any-return]


def load_options(settings: ModelSettings) -> dict[str, Any]:
    """What `from_pretrained` is given: dtype, attention, quantisation."""
    library = settings.library
    options: dict[str, Any] = {"dtype": library.dtype or "auto"}
    if settings.makes_weights and library.dtype in (None, "auto"):
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


def base_called(settings: ModelSettings) -> str:
    """A named base as the recipe names it; of a folder only its last part, as paths of this machine say nothing elsewhere."""
    named = Path(settings.library.model_name_or_path)
    return named.name if named.is_absolute() or named.exists() else str(named)


def base_identity(settings: ModelSettings) -> dict[str, Any]:
    """What names the base in fingerprints: its name, revision and, of a local folder, its files; or the config it is made from."""
    if settings.from_scratch is not None:
        return {"from_scratch": settings.from_scratch, "text_vocab_size": settings.text_vocab_size}
    name = settings.library.model_name_or_path
    identity: dict[str, Any] = {"name": name, "revision": settings.library.model_revision}
    if Path(name).is_dir():
        identity["files"] = stamp(Path(name))
    if settings.random_weights:
        identity["random_weights"] = True
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
