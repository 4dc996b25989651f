"""The language model: made from scratch or loaded, with the new tokens of the item index."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rectune.indexing.item_index import ItemIndex
from rectune.model.new_tokens import add_tokens, new_token_ids, rows_needed, start_new_tokens, train_tokenizer
from rectune.model.settings import ModelSettings, load_options, pick_device
from rectune.prompts.encoder import Encoder, Frame
from rectune.runtime.checkpoints import check_checkpoint
from rectune.runtime.text_files import first_line

KEY = "model.model_name_or_path"
KNOWN = "known_tokens.json"  # ids of tokens of the index that the base has already


def build_base(
    settings: ModelSettings,
    index: ItemIndex,
    texts: Iterable[str],
    folder: Path,
    *,
    seed: int,
    frame: Frame | None = None,
) -> None:
    """Write what every stage starts from: the tokenizer with the new tokens, the frame of every prompt, and the weights where
    they are not loaded. `frame`: that of an earlier run whose model is the base, which may know tokens of the index already."""
    if settings.from_scratch is None:
        tokenizer = tokenizer_of(settings)
        own = set(tokenizer.get_vocab()) if frame is not None else set()
        known = [token for token in index.vocabulary if token in own]
        add_tokens(tokenizer, [token for token in index.vocabulary if token not in own])
        if known:
            (folder / KNOWN).write_text(json.dumps(tokenizer.convert_tokens_to_ids(known)))
        if settings.random_weights:
            _drawn_anew(settings, tokenizer, seed).save_pretrained(folder / "model")
    else:
        tokenizer = train_tokenizer(texts, settings.text_vocab_size)
        add_tokens(tokenizer, index.vocabulary)
        _from_scratch(settings.from_scratch, tokenizer, seed).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "tokenizer")
    kept = load_tokenizer(folder)
    if new_token_ids(kept, index) != new_token_ids(tokenizer, index):
        raise ValueError("the new tokens have other ids once the tokenizer is saved and loaded; use another base.")
    (frame or Encoder(kept, index.vocabulary, form=settings.prompt_form).frame).save(folder)


def load_tokenizer(base: Path) -> Any:
    """The tokenizer of a base folder or of a bundle, new tokens included."""
    from transformers import AutoTokenizer

    inside = base / "tokenizer"
    return AutoTokenizer.from_pretrained(inside if inside.is_dir() else base, trust_remote_code=False)


def load_base(settings: ModelSettings, base: Path, index: ItemIndex, *, seed: int) -> Any:
    """Load the untuned model with its new tokens, in eval mode, on its device. The same every time."""
    from transformers import set_seed

    set_seed(seed)
    tokenizer = load_tokenizer(base)
    options = load_options(settings)
    if settings.makes_weights:
        model = _pretrained(base / "model", **options)
    else:
        model = _named_model(settings, options)
        if rows_needed(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(rows_needed(tokenizer), mean_resizing=False)
        known = json.loads((base / KNOWN).read_text()) if (base / KNOWN).exists() else []
        start_new_tokens(model, tokenizer, index, seed=seed, kept=known)
    if "quantization_config" not in options:
        model.to(pick_device(settings))
    keep_gradients_on_cpu(model)
    return model.eval()


def load_plain(settings: ModelSettings, folder: Path) -> Any:
    """Load whole weights from a folder, in eval mode, on the device and in the dtype that `settings` name."""
    model = _pretrained(folder, use_safetensors=True, **load_options(settings))
    return model.to(pick_device(settings)).eval()


def _named_model(settings: ModelSettings, options: dict[str, Any]) -> Any:
    name = settings.library.model_name_or_path
    check_checkpoint(name, key=KEY, parts=("model", "weights"), revision=settings.library.model_revision)
    try:
        return _pretrained(name, revision=settings.library.model_revision, **options)
    except (OSError, ValueError) as error:
        if Path(name).is_dir() and isinstance(error, ValueError):
            raise  # the base is there: what is wrong is another matter
        raise FileNotFoundError(
            f"`model.model_name_or_path`: the base `{name}` could not be loaded ({first_line(error)}). Put it back where it was, or, for "
            "a model of the Hub, connect to the network."
        ) from None


def _pretrained(name: Any, *, revision: str = "main", **options: Any) -> Any:
    """Load a causal language model, or an encoder-decoder where its config says so."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    return kind_of(config).from_pretrained(name, revision=revision, trust_remote_code=False, **options)


def kind_of(config: Any) -> Any:
    """The class that loads a model of this config: for causal language models, or for encoder-decoders."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def tokenizer_of(settings: ModelSettings) -> Any:
    """The tokenizer of a named base, as it comes. Raises FileNotFoundError where there is none."""
    from transformers import AutoTokenizer

    name = settings.library.model_name_or_path
    check_checkpoint(name, key=KEY, parts=("model", "tokenizer"), revision=settings.library.model_revision)
    try:
        revision = settings.library.model_revision
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        if len(tokenizer.get_vocab()) <= len(tokenizer.get_added_vocab()):
            raise OSError("its files hold no vocabulary, such as tokenizer.json")
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"`model.model_name_or_path`: no tokenizer could be loaded from `{name}` ({first_line(error)}). Give a local folder, or a "
            "model of the Hub with a network connection."
        ) from None
    return tokenizer


def keep_gradients_on_cpu(model: Any) -> None:
    """Stop bitsandbytes from repacking 4-bit layers at the first eval-mode forward on a CPU.

    The repacked form has no autograd: training would go on without gradients, in silence.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False


def _from_scratch(fields: dict[str, Any], tokenizer: Any, seed: int) -> Any:
    from transformers import set_seed

    config = config_of(fields, tokenizer, vocabulary=rows_needed(tokenizer))
    set_seed(seed)
    return kind_of(config).from_config(config)


def _drawn_anew(settings: ModelSettings, tokenizer: Any, seed: int) -> Any:
    """A named base's architecture with random weights, and rows for the new tokens."""
    from transformers import AutoConfig, set_seed

    name, revision = settings.library.model_name_or_path, settings.library.model_revision
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    text = config.get_text_config()
    text.vocab_size = max(text.vocab_size, rows_needed(tokenizer))
    set_seed(seed)
    return kind_of(config).from_config(config, dtype="float32")


def config_of(fields: dict[str, Any], tokenizer: Any, *, vocabulary: int) -> Any:
    """The config of a model from scratch: what the recipe says, and the tokenizer's special tokens."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        **fields,
        vocab_size=vocabulary,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    if config.is_encoder_decoder:
        config.decoder_start_token_id = tokenizer.pad_token_id  # as T5 does
    return config
