"""The language model: loaded or made from scratch, new tokens, adapters, and loading what was tuned."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rectune.checking import near
from rectune.encoder import Form
from rectune.indexing.item_index import ItemIndex
from rectune.library_config import library_config
from rectune.recipe import Recipe
from rectune.run_folder import stamp

PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"
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


def pick_device(settings: ModelSettings) -> torch.device:
    """The device that `model.device` means on this machine (one GPU a process)."""
    if settings.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    from rectune.processes import local_rank

    return torch.device("cuda", local_rank())


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


# ------------------------------------------------------------------------------------------------------------ the base


def build_base(settings: ModelSettings, index: ItemIndex, texts: Iterable[str], folder: Path, *, seed: int) -> None:
    """Write what every stage starts from: the tokenizer with the new tokens, and the weights if made from scratch."""
    if settings.from_scratch is None:
        _, tokenizer = _named(settings)
        _add_tokens(tokenizer, index.vocabulary)
    else:
        tokenizer = _train_tokenizer(texts, settings.text_vocab_size)
        _add_tokens(tokenizer, index.vocabulary)
        _from_scratch(settings.from_scratch, tokenizer, seed).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "tokenizer")


def load_tokenizer(base: Path) -> Any:
    """The tokenizer of a base folder, new tokens included."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base / "tokenizer")


def load_base(settings: ModelSettings, base: Path, index: ItemIndex, *, seed: int) -> Any:
    """Load the untuned model with its new tokens, in eval mode, on its device. The same every time."""
    from transformers import set_seed

    set_seed(seed)
    tokenizer = load_tokenizer(base)
    options = _load_options(settings)
    if settings.from_scratch is not None:
        model = _pretrained(base / "model", **options)
    else:
        model = _named_model(settings, options)
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        _start_new_tokens(model, tokenizer, index, seed=seed)
    if "quantization_config" not in options:
        model.to(pick_device(settings))
    keep_gradients_on_cpu(model)
    return model.eval()


def _named_model(settings: ModelSettings, options: dict[str, Any]) -> Any:
    name = settings.library.model_name_or_path
    try:
        return _pretrained(name, revision=settings.library.model_revision, **options)
    except (OSError, ValueError) as error:
        if Path(name).is_dir() and isinstance(error, ValueError):
            raise  # the base is there: what is wrong is another matter
        first = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"`model.model_name_or_path`: the base `{name}` could not be loaded ({first}). Put it back where it was, or, for "
            "a model of the Hub, connect to the network."
        ) from None


def _pretrained(name: Any, *, revision: str = "main", **options: Any) -> Any:
    """Load a causal language model, or an encoder-decoder where its config says so."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(name, revision=revision)
    return _kind(config).from_pretrained(name, revision=revision, **options)


def _kind(config: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _named(settings: ModelSettings) -> tuple[str, Any]:
    from transformers import AutoTokenizer

    name = settings.library.model_name_or_path
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=settings.library.model_revision)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"`model.model_name_or_path`: no tokenizer could be loaded from `{name}` ({first}). Give a local folder, or a "
            "model of the Hub with a network connection."
        ) from None
    return name, tokenizer


def _load_options(settings: ModelSettings) -> dict[str, Any]:
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

    return get_quantization_config(dataclasses.replace(settings.library, dtype=_named_dtype(settings)))


def _named_dtype(settings: ModelSettings) -> str:
    dtype = settings.library.dtype
    return "bfloat16" if dtype in (None, "auto") else str(dtype)


def keep_gradients_on_cpu(model: Any) -> None:
    """Stop bitsandbytes from repacking 4-bit layers at the first eval-mode forward on a CPU.

    The repacked form has no autograd: training would go on without gradients, in silence.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False


def _train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer trained on `texts`; any text can be encoded, `<|start|>` goes before it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    raw.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, raw.token_to_id(START))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=PAD, bos_token=START, eos_token=END)


def _add_tokens(tokenizer: Any, vocabulary: Sequence[str]) -> None:
    from transformers import AddedToken

    taken = set(vocabulary) & set(tokenizer.get_vocab())
    if taken:
        raise ValueError(
            f"the tokenizer already has the token {sorted(taken)[0]!r} of the item index; use another base or index."
        )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in vocabulary])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def _from_scratch(fields: dict[str, Any], tokenizer: Any, seed: int) -> Any:
    from transformers import AutoConfig, set_seed

    config = AutoConfig.for_model(
        **fields,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    if config.is_encoder_decoder:
        config.decoder_start_token_id = tokenizer.pad_token_id  # as T5 does
    set_seed(seed)
    return _kind(config).from_config(config)


def new_token_ids(tokenizer: Any, index: ItemIndex) -> list[int]:
    """Ids of the index vocabulary in the tokenizer, in the order of the vocabulary."""
    return list(tokenizer.convert_tokens_to_ids(list(index.vocabulary))) if index.vocabulary else []


def tied(model: Any) -> bool:
    """Whether input and output embeddings are one matrix."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


@torch.no_grad()
def _start_new_tokens(model: Any, tokenizer: Any, index: ItemIndex, *, seed: int) -> None:
    """Set each new row to the mean of the words it stands for, or to the mean of all old rows plus a little noise."""
    from rectune.encoder import Encoder

    ids = new_token_ids(tokenizer, index)
    if not ids:
        return
    encoder = Encoder(tokenizer, index.vocabulary, form="plain")
    words = [encoder.text_ids(meaning)[:64] if meaning else [] for meaning in index.meanings or [""] * len(ids)]
    old = torch.ones(len(tokenizer), dtype=torch.bool)
    old[ids] = False
    matrices = [model.get_input_embeddings().weight]
    matrices += [] if tied(model) else [model.get_output_embeddings().weight]
    for matrix in matrices:
        known = matrix[: len(tokenizer)][old.to(matrix.device)].float()
        noise = torch.randn((len(ids), matrix.shape[1]), generator=torch.Generator().manual_seed(seed))
        rows = known.mean(0) + 0.1 * known.std(0) * noise.to(matrix.device)
        for i, word in enumerate(words):
            if word:
                rows[i] = matrix[word].float().mean(0)
        matrix[ids] = rows.to(matrix.dtype)


# ------------------------------------------------------------------------------------------------------------ adapters


def with_adapter(model: Any, settings: ModelSettings, token_ids: Sequence[int], *, seed: int) -> Any:
    """Put a LoRA adapter on the model as ModelConfig says; new tokens are trained in every matrix that holds them."""
    from peft import get_peft_model
    from transformers import set_seed
    from trl import get_peft_config

    config = get_peft_config(settings.library)
    if config.target_modules is None:
        config.target_modules = "all-linear"
    if token_ids and config.modules_to_save:
        raise ValueError(
            "`model.lora_modules_to_save` unties or copies whole embedding matrices; new tokens are trained without it."
        )
    if token_ids:
        config.trainable_token_indices = _trainable(model, token_ids)
    set_seed(seed)
    # For a quantised base too: PEFT freezes the weights, and TRL lets gradients into checkpointed layers. PEFT's
    # `prepare_model_for_kbit_training` would also cast embeddings, head and norms to float32: 2.5 GB more for two matrices of
    # 151,936 x 4,096, and other logits than the reloaded model, whose matrices have the recipe's `dtype`, gives.
    adapted = get_peft_model(model, config)
    adapted.get_output_embeddings().bias = None  # TRL's fused head asks for it and PEFT's wrapper has none
    return adapted


def _trainable(model: Any, token_ids: Sequence[int]) -> list[int] | dict[str, list[int]]:
    """PEFT's trainable_token_indices: one list where the embeddings are tied, both layers by name where not."""
    ids = [int(i) for i in token_ids]
    if tied(model):
        return ids
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    names = [name for layer in layers for name, module in model.named_modules() if module is layer]
    return {name.rpartition(".")[2]: ids for name in names}


def load_tuned(
    settings: ModelSettings, base: Path, tuned: Path, index: ItemIndex, *, seed: int, trainable: bool = False
) -> Any:
    """Load a tuned model: an adapter on the base, or whole weights. In eval mode unless `trainable`."""
    if not (tuned / "adapter_config.json").exists():
        return load_plain(settings, tuned).train(trainable)
    from peft import PeftModel
    from safetensors import safe_open

    with safe_open(tuned / "adapter_model.safetensors", "pt") as file:
        single = all(file.get_slice(key).get_dtype() == "F32" for key in file.keys())  # noqa: SIM118
    model = load_base(settings, base, index, seed=seed)
    # Adapters of quantised models are trained and saved in bfloat16; casting them up would change the logits.
    adapted = PeftModel.from_pretrained(model, tuned, is_trainable=trainable, autocast_adapter_dtype=single)
    adapted.get_output_embeddings().bias = None
    return adapted.train(trainable)


def load_plain(settings: ModelSettings, folder: Path) -> Any:
    """Load whole weights from a folder, in eval mode, on the device and in the dtype that `settings` name."""
    model = _pretrained(folder, **_load_options(settings))
    return model.to(pick_device(settings)).eval()


def fold_adapter(model: Any, settings: ModelSettings) -> Any:
    """For ranking: add an adapter to the weights below it. A quantised base keeps its adapter, where adding would round."""
    if not hasattr(model, "peft_config") or quantization_config(settings) is not None:
        return model
    return model.merge_and_unload().eval()


def unquantised(settings: ModelSettings) -> ModelSettings:
    """The same section with a base in the recipe's `dtype` (bfloat16 where it names none) instead of 4 or 8 bits."""
    if quantization_config(settings) is None:
        return settings
    library = dataclasses.replace(
        settings.library, load_in_4bit=False, load_in_8bit=False, dtype=_named_dtype(settings)
    )
    return dataclasses.replace(settings, library=library)


def base_identity(settings: ModelSettings) -> dict[str, Any]:
    """What names the base in fingerprints and in the checks of an adapter: its name, revision and config."""
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


def seeded(seed: int, *parts: object) -> np.random.Generator:
    """A random generator that depends on `seed` and `parts` only."""
    import hashlib

    digest = hashlib.blake2b(" ".join(map(str, (seed, *parts))).encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
