"""Adapters: put on a model, loaded with what was tuned, folded into the weights for ranking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rectune.indexing.item_index import ItemIndex
from rectune.model.load import load_base, load_plain
from rectune.model.new_tokens import tied
from rectune.model.settings import ModelSettings, quantization_config
from rectune.runtime.near import near


def with_adapter(model: Any, settings: ModelSettings, token_ids: Sequence[int], *, seed: int) -> Any:
    """Put a LoRA adapter on the model as ModelConfig says; new tokens are trained in every matrix that holds them."""
    from peft import get_peft_model
    from transformers import set_seed
    from trl import get_peft_config

    config = get_peft_config(settings.library)
    if config.target_modules is None:
        config.target_modules = "all-linear"
    _check_targets(model, config)
    if token_ids:
        config.trainable_token_indices = _trainable(model, token_ids)
    set_seed(seed)
    # For a quantised base too: PEFT freezes the weights, and TRL lets gradients into checkpointed layers. PEFT's
    # `prepare_model_for_kbit_training` would also cast embeddings, head and norms to float32: 2.5 GB more for two matrices of
    # 151,936 x 4,096, and other logits than the reloaded model, whose matrices have the recipe's `dtype`, gives.
    adapted = get_peft_model(model, config)
    adapted.get_output_embeddings().bias = (
        None  # no adapter is on it; TRL's fused head asks for it and PEFT's wrapper has none
    )
    return adapted


def _check_targets(model: Any, config: Any) -> None:
    """Raise ValueError for names that no module has, and for an adapter on (or a copy of) an embedding matrix or the head: an adapter
    holds none, so what it learnt there could not be saved, and folding it in would part matrices that are tied."""
    from peft.tuners.tuners_utils import check_target_module_exists

    if isinstance(config.target_modules, str) and config.target_modules.isidentifier():
        config.target_modules = {
            config.target_modules
        }  # TRL's config makes a list of one name a pattern for the whole path
    every = dict(model.named_modules())
    matrices = [layer.weight for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    embedding = {name for name, module in every.items() if any(_weight_of(module) is matrix for matrix in matrices)}
    known = {name.rpartition(".")[2] for name in every} - {name.rpartition(".")[2] for name in embedding} - {""}
    targets, saved = config.target_modules, list(config.modules_to_save or [])
    named = {"lora_target_modules": [] if isinstance(targets, str) else sorted(targets), "lora_modules_to_save": saved}
    for key, names in named.items():
        for name in names:
            found = {path for path in every if path == name or path.endswith(f".{name}")}
            if not found:
                raise ValueError(f"`model.{key}`: the base has no module `{name}`.{near(name, _worded(known))}")
            if found & embedding:
                raise ValueError(_EMBEDDING.format(key=key, name=name))
    whole = targets != "all-linear" and isinstance(targets, str)
    if whole and (hit := [name for name in sorted(embedding) if check_target_module_exists(config, name)]):
        raise ValueError(_EMBEDDING.format(key="lora_target_modules", name=hit[0]))


_EMBEDDING = (
    "`model.{key}`: `{name}` is the embedding matrix or the head, and an adapter holds neither. Leave it out (new tokens are trained "
    "without it), or tune all weights with `model.use_peft: false`."
)


def _weight_of(module: Any) -> Any:
    return module._parameters.get("weight")


def _worded(names: set[str]) -> set[str]:
    return {name for name in names if not name.isdigit()}


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
