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
        config = AutoConfig.for_model(**{**settings.from_scratch, "vocab_size": 8, "pad_token_id": 0})
    else:
        name = settings.library.model_name_or_path
        check_checkpoint(name, key=KEY, revision=settings.library.model_revision, fetch=False)
        if not (Path(name) / "config.json").is_file():
            return None
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if settings.library.use_peft:
        _check_adapter(settings, config)
    return config


def _check_adapter(settings: ModelSettings, config: Any) -> None:
    """Put the adapter on a model without weights. Raises what `with_adapter` does."""
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights():
        model = kind_of(config).from_config(config)
    model.tie_weights()
    with_adapter(model, settings, (), seed=0)
