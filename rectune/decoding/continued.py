"""What a model writes after prompts when nothing holds it to the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig


@torch.no_grad()
def continued(model: Any, prompts: Sequence[Sequence[int]], *, most: int, pad: int, end: int) -> list[list[int]]:
    """At most `most` token ids after each prompt, the likeliest one at each step, up to and without the end of text."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    seen = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    start = {"decoder_start_token_id": model.config.decoder_start_token_id} if model.config.is_encoder_decoder else {}
    config = GenerationConfig(
        max_new_tokens=most, do_sample=False, num_beams=1, pad_token_id=pad, eos_token_id=end, **start
    )
    inherited = model.generation_config
    model.generation_config = config  # generate() fills what a config leaves open from the checkpoint's, such as a penalty for what the prompt says
    try:
        out = model.generate(input_ids=ids, attention_mask=seen, generation_config=config)
    finally:
        model.generation_config = inherited
    answers = out[:, 1:] if model.config.is_encoder_decoder else out[:, longest:]
    return [row[: row.index(end)] if end in row else row for row in answers.tolist()]
