"""The model that a training would hold, without its weights: on the meta device, then as fake tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rectune.model.adapters import with_adapter
from rectune.model.load import kind_of
from rectune.model.settings import ModelSettings, load_options, quantization_config
from rectune.planning.quantised import quantise
from rectune.runtime.checkpoints import check_checkpoint
from rectune.runtime.near import near


def base_config(settings: ModelSettings, *, vocabulary: int | None) -> Any:
    """The transformers config of the base; of a checkpoint only `config.json` is read (or fetched).

    `vocabulary`: tokens of a base made from scratch. Raises FileNotFoundError where there is no config, ValueError for a model type
    that transformers does not know.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    if settings.from_scratch is not None:
        ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        config = AutoConfig.for_model(**{**settings.from_scratch, **ids}, vocab_size=vocabulary)
        if config.is_encoder_decoder:
            config.decoder_start_token_id = 0
        return config
    name = settings.library.model_name_or_path
    check_checkpoint(name, key="model.model_name_or_path", parts=("model",), revision=settings.library.model_revision)
    try:
        return AutoConfig.from_pretrained(name, revision=settings.library.model_revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        first = " ".join(str(error).split())
        kind = _unknown_type(first)
        if kind is not None:
            raise ValueError(
                f"`model.model_name_or_path`: the config of `{name}` has the model type `{kind}`, which this transformers does not "
                f"know.{near(kind, CONFIG_MAPPING.keys())}"
            ) from None
        raise FileNotFoundError(
            f"`model.model_name_or_path`: no config.json could be read from `{name}` ({first[:200]}). Give a local folder that "
            "holds one, or a model of the Hub with a network connection."
        ) from None


def _unknown_type(message: str) -> str | None:
    """The model type that a message of transformers complains about, or None."""
    words = message.partition("has model type `")[2]
    return words.partition("`")[0] or None


def planned_model(settings: ModelSettings, config: Any, *, rows: int, new_tokens: Sequence[int]) -> Any:
    """The model on the meta device as a training would load it: `rows` of embeddings, quantised, with its adapter."""
    from transformers.initialization import no_init_weights

    options = load_options(settings)
    dtype = options["dtype"]
    kept = config.dtype if config.dtype is not None else torch.float32
    chosen = kept if dtype == "auto" else dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype))
    attention = {k: options[k] for k in ("attn_implementation",) if k in options}
    with torch.device("meta"), no_init_weights():
        model = kind_of(config).from_config(config, dtype=chosen, **attention)
    model.tie_weights()  # which a model made without initialisation leaves undone
    with torch.device("meta"):
        if rows > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(rows, mean_resizing=False)
    wanted = quantization_config(settings)
    if wanted is not None:
        compute = getattr(wanted, "bnb_4bit_compute_dtype", None) or torch.float32
        quantise(
            model, bits=4 if wanted.load_in_4bit else 8, nested=bool(wanted.bnb_4bit_use_double_quant), compute=compute
        )
    if settings.library.use_peft:
        model = with_adapter(model, settings, new_tokens, seed=0)
    if wanted is not None:  # TRL makes what is trained on a quantised base bfloat16
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    return model


def make_fake(model: Any, mode: FakeTensorMode) -> None:
    """Turn the parameters and buffers of a meta model into fake CPU tensors, shared ones staying shared."""
    made: dict[int, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            with mode:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            parameter = isinstance(tensor, torch.nn.Parameter)
            made[id(tensor)] = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad) if parameter else empty
        return made[id(tensor)]

    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = fake(tensor)


def bytes_of(tensors: Any) -> int:
    """Bytes of distinct tensors."""
    return sum(t.numel() * t.element_size() for t in {id(t): t for t in tensors}.values())
