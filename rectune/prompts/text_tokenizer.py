"""Tokenizers for texts alone: characters stay characters, however they look."""

from __future__ import annotations

import json
from typing import Any

_RENAMED = "\ue000"  # fences segments in templates, so no value of a template holds it


def check_backend(tokenizer: Any) -> None:
    """Raise ValueError for a tokenizer that the library `tokenizers` does not run, such as ByT5's."""
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ValueError(
            f"`model.model_name_or_path`: its tokenizer is a `{type(tokenizer).__name__}`, which has no `tokenizer.json` of the library "
            "`tokenizers`; rectune needs one to keep item texts apart from special tokens. Use another base."
        )


def is_blank(token: str) -> bool:
    """Whether an added token is only white space (Gemma's runs of line ends and blanks): a text may hold it."""
    return not token.strip(" \t\r\n\v\f\u2581")


def text_tokenizers(tokenizer: Any) -> tuple[Any, Any]:
    """Two copies of a tokenizer, for texts that begin a sequence and for those within one.

    They know no added tokens but blank ones, and add none. A piece of the vocabulary that spells an added token (Unigram models
    find it in a text) is renamed to what no text holds; the unknown token keeps its id.
    """
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in state["added_tokens"] if is_blank(token["content"])]
    gone = {token["content"] for token in state["added_tokens"]} - {token["content"] for token in kept}
    state.update(added_tokens=kept, post_processor=None, truncation=None, padding=None)
    _rename(state["model"], gone, kept)
    first = Tokenizer.from_str(json.dumps(state))
    if not _drop_first(state):
        return first, first
    return first, Tokenizer.from_str(json.dumps(state))


def _rename(model: dict[str, Any], gone: set[str], kept: list[dict[str, Any]]) -> None:
    """Rename the pieces `gone` of a model's vocabulary; give it the `kept` ones with their ids."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pairs of piece and score, the place is the id
        model["vocab"] = [[_RENAMED + piece if piece in gone else piece, score] for piece, score in vocabulary]
        return
    model["vocab"] = {_RENAMED + piece if piece in gone else piece: number for piece, number in vocabulary.items()}
    for token in kept:
        model["vocab"].setdefault(token["content"], token["id"])
    if model.get("unk_token") in gone:
        model["unk_token"] = _RENAMED + model["unk_token"]
    if "merges" in model:
        pairs = (merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"])
        model["merges"] = [pair for pair in pairs if not gone.intersection((*pair, "".join(pair)))]


def _drop_first(part: Any) -> bool:
    """Let every Metaspace put no blank before a text where it would put one only before the first; whether there was one."""
    if isinstance(part, list):
        return sum([_drop_first(one) for one in part]) > 0  # all of them, not up to the first
    if not isinstance(part, dict):
        return False
    found = part.get("type") == "Metaspace" and part.get("prepend_scheme") == "first"
    if found:
        part["prepend_scheme"] = "never"
    inner = [
        _drop_first(part[key]) for key in ("normalizer", "pre_tokenizer", "pretokenizers", "normalizers") if key in part
    ]
    return found or any(inner)
