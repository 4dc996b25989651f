"""Tiny models, catalogues of names and prompts, and two truths to compare a search with: `generate` and brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rectune.decoding.engine import Engine
from rectune.decoding.reference import reference_search
from rectune.decoding.shelf import Shelf
from rectune.decoding.trie import Trie, build_trie

END, PAD, VOCABULARY = 2, 0, 120
SMALL = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
LLAMA = {**SMALL, "num_key_value_heads": 1, "head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "mistral": {**LLAMA, "sliding_window": 32},
    "gemma2": {**LLAMA, "sliding_window": 32, "final_logit_softcapping": 3.0},
    "gemma3_text": {**LLAMA, "sliding_window": 32},
    "cohere": {**LLAMA, "logit_scale": 0.3},
    "granite": {**LLAMA, "logits_scaling": 3.0},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gpt_neox": {**SMALL, "max_position_embeddings": 64},
    "opt": {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 8},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
}  # fmt: skip
FALLEN = {
    "bloom": ({"hidden_size": 16, "n_layer": 2, "n_head": 2}, "mask of its own for each beam"),
    "gpt_neo": (
        {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]], "window_size": 8},
        "masks of its own, by place in the cache",
    ),
    "mpt": ({"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 64}, "adds a bias by place in the cache"),
    "mamba": ({"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}, "layers that carry a state"),
}  # fmt: skip
IDS = [[10 + a, 20 + b, 30 + c] for a in range(4) for b in range(5) for c in range(3) if (7 * a + 3 * b + c) % 4]
TITLES = [
    [*name, END] for name in ([10], [10, 11], [10, 11, 12], [13, 11], [13, 14, 15, 16], [17], [17, 10, 11, 12, 13])
]
PROMPTS = [[40, 41, 42, 43, 44], [45], [46, 47, 48], [49, 40]]
HIDDEN = [[0, 1, 2], [3], [], [4, 5, 6]]


def build(family: str, *, seed: int = 1, **fields: Any) -> Any:
    """A tiny model whose logits differ enough between tokens to order a catalogue."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = AutoConfig.for_model(
        family, vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=1, eos_token_id=2, **fields
    )
    torch.manual_seed(seed)
    model = (AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM).from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, 0, 0.3)
    return model


@torch.no_grad()
def brute_force(model: Any, prompt: list[int], names: list[list[int]], trie: Trie, *, catalogue: bool) -> np.ndarray:
    """Log-probability of every name, one forward pass a name."""
    totals = []
    for name in names:
        logp = model(input_ids=torch.tensor([[*prompt, *name]])).logits[0].double().log_softmax(-1)
        total, node = 0.0, 0
        for step, token in enumerate(name):
            row, children = logp[len(prompt) - 1 + step], trie.children(node)
            total += float(row[token] - (row[list(children)].logsumexp(0) if catalogue else 0.0))
            node = children[token]
        totals.append(total)
    return np.array(totals)


def engine_of(model: Any, names: list[list[int]], scores: Any, **options: Any) -> Engine:
    end = END if names[0][-1] == END else None
    trie = build_trie(names, fixed_length=end is None)
    return Engine(model, trie, scores=scores, end=end, pad=PAD, **options)


def both(engine: Engine, model: Any, prompts: list[list[int]], beams: int, shelf: Shelf) -> tuple[Any, Any]:
    reference = reference_search(
        model, engine._trie, prompts, beams=beams, scores=engine._scores, end=engine._end, pad=PAD, shelf=shelf
    )
    return engine.search(prompts, beams=beams, shelf=shelf), reference


def assert_same(found: Any, reference: Any) -> None:
    assert found.items.tolist() == reference.items.tolist()
    listed = found.items >= 0
    np.testing.assert_allclose(found.scores[listed], reference.scores[listed], atol=1e-4)
    assert np.isneginf(found.scores[~listed]).all()
