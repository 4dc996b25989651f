"""Adapters: put on a model, loaded with what was tuned, folded into the weights for ranking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rectune.indexing.item_index import ItemIndex
from rectune.model.load import load_base, load_plain
from rectune.model.new_tokens import tied
from rectune.model.settings import ModelSettings, quantization_config


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


def fold_adapter(model: Any, settings: ModelSettings) -> Any:
    """For ranking: add an adapter to the weights below it. A quantised base keeps its adapter, where adding would round."""
    if not hasattr(model, "peft_config") or quantization_config(settings) is not None:
        return model
    return model.merge_and_unload().eval()
