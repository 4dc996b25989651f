"""A writer that asks any causal language model, greedily; every text is kept in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import polars as pl

from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Template, load_template
from rectune.recipe.load import bundled
from rectune.runtime.cache import made_once
from rectune.runtime.checkpoints import check_checkpoint
from rectune.runtime.progress import watched
from rectune.runtime.text_files import first_line
from rectune.tasks.examples import fit_prompt
from rectune.tasks.views import ItemTexts
from rectune.vectors.texts import model_identity

Kind = Literal["intention", "preference"]


def causal_model(
    items: pl.DataFrame,
    asked: Sequence[Sequence[int]],
    *,
    kind: Kind,
    model: str,
    template: Path | None = None,
    max_new_tokens: int = 60,
    max_length: int = 1024,
    batch_size: int = 8,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> list[str]:
    """Let a language model write intentions or preferences from item texts.

    `model`: a folder, or a name on the Hub. `template`: instead of the bundled write-intention.jinja (variable `item`) or
    write-preference.jinja (`history`); its first wording is used, in the tokenizer's chat template where it has one.
    `max_length` and `max_new_tokens` are in tokens; the oldest of a history is left out where it does not fit. Texts are
    kept under the hash of model, length and prompt after every batch, so a killed run loses at most one batch. The
    checkpoint's own generation settings are not used. Raises FileNotFoundError when the model cannot be loaded.
    """
    encoder = Encoder(_load_tokenizer(model), ())
    said = load_template(template or bundled("templates")[0] / f"write-{kind}.jinja")
    prompts = [" ".join(map(str, ids)) for ids in _prompts(encoder, said, items, asked, kind, max_length)]
    loaded = cache(lambda: _load_model(model, device))  # only where some text is new

    def write(batch: list[str]) -> Iterator[tuple[str, bytes]]:
        ids = [[int(number) for number in prompt.split()] for prompt in batch]
        texts = _generate(loaded(), encoder, ids, max_new_tokens)
        yield from zip(batch, (text.encode() for text in texts), strict=True)

    maker = f"causal_model {model_identity(model)} {max_new_tokens}"
    texts: dict[str, str] = {}
    for batch in _batches(prompts, batch_size):
        written = made_once(batch, write, name="written", maker=maker)
        texts.update(zip(batch, (text.decode() for text in written), strict=True))
    return [texts[prompt] for prompt in prompts]


def _prompts(
    encoder: Encoder, template: Template, items: pl.DataFrame, asked: Sequence[Sequence[int]], kind: Kind, room: int
) -> Iterator[list[int]]:
    view = ItemTexts(items)
    for codes in asked:
        views = [view(int(code)) for code in codes]
        variables = {"item": views[0]} if kind == "intention" else {"history": views}
        ids, _ = fit_prompt(encoder, template, 0, variables, room=room, what=f"`writer`, {kind} of items {list(codes)}")
        yield ids


def _batches(prompts: Sequence[str], size: int) -> Iterator[list[str]]:
    """Every prompt once, prompts of like length together, while it is shown how far they are."""
    once = sorted(dict.fromkeys(prompts), key=lambda prompt: prompt.count(" "))
    for begin in watched(range(0, len(once), size), len(once), "writing texts", "prompts", each=size):
        yield once[begin : begin + size]


def _generate(model: Any, encoder: Encoder, prompts: list[list[int]], max_new_tokens: int) -> list[str]:
    """Greedy continuations of prompts of any lengths, without what ends them."""
    import torch
    from transformers import GenerationConfig

    ends = {encoder.end_id, encoder.tokenizer.eos_token_id} - {None}
    pad = encoder.tokenizer.pad_token_id
    pad = encoder.end_id if pad is None else pad
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=model.device)  # (B, T)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        pad_token_id=pad,
        eos_token_id=sorted(ends),
    )
    model.generation_config = config  # generate() fills what a config leaves open from the checkpoint's
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    return [_text(encoder.tokenizer, row, ends) for row in out[:, longest:].tolist()]


def _text(tokenizer: Any, ids: list[int], ends: set[int]) -> str:
    stop = next((at for at, number in enumerate(ids) if number in ends), len(ids))
    return str(tokenizer.decode(ids[:stop], skip_special_tokens=True)).strip()


def _load_tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    check_checkpoint(model, key="writer.model")
    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _not_loaded("tokenizer", model, error) from None


def _load_model(model: str, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto", trust_remote_code=False)
        return loaded.to(device).eval()
    except (OSError, ValueError) as error:
        raise _not_loaded("causal model", model, error) from None


def _not_loaded(what: str, model: str, error: Exception) -> FileNotFoundError:
    return FileNotFoundError(
        f"`writer.model`: no {what} could be loaded from `{model}` ({first_line(error)}). Give a local folder, or a model of the Hub with "
        "a network connection."
    )
