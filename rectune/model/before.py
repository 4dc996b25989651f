"""What can be said of a base before anything is built or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rectune.model.adapters import with_adapter
from rectune.model.load import KEY, kind_of
from rectune.model.settings import ModelSettings
from rectune.runtime.checkpoints import check_checkpoint


def check_base(settings: ModelSettings) -> Any:
    """The config of the base, or None where it is not on this machine.

    Raises ValueError for what cannot be a base (see `check_checkpoint`), and for an adapter that it cannot have.
    """
    from transformers import AutoConfig

    if settings.from_scratch is not None:
        config = _made(settings.from_scratch)
    else:
        name = settings.library.model_name_or_path
        check_checkpoint(
            name, key=KEY, parts=("model", "tokenizer"), revision=settings.library.model_revision, fetch=False
        )
        if not (Path(name) / "config.json").is_file():
            return None
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError, KeyError):
            return None  # whoever reads it next says why
    if settings.library.use_peft:
        with_adapter(_without_weights(config), settings, (), seed=0)
    return config


def _made(fields: dict[str, Any]) -> Any:
    """The config of a base that is made from scratch. Raises ValueError where no model can be made of it."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.for_model(**{**fields, "vocab_size": 8, "pad_token_id": 0})
        _without_weights(config)
    except Exception as error:  # each model type checks its fields in its own way, or not at all
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"`model.from_scratch`: no `{fields['model_type']}` can be made of these fields: {said[:300]}. Sizes are whole numbers from 1 on."
        ) from None
    return config


def _without_weights(config: Any) -> Any:
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights():
        model = kind_of(config).from_config(config)
    model.tie_weights()
    return model
