"""Attention in float32 while a model in half precision trains on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rectune.methods.cpu_attention import FEW, attention_in_float32
from tests.decoding.models import LLAMA, build
from tests.runs import tuned

RECIPE = """
include: quickstart.yaml
data: {users: 20, items: 40, categories: 2, shortest: 4, longest: 6}
vectors: null
index: {call: atomic}
model: {dtype: bfloat16}
stages: {0: {max_steps: 1}}
rank: {beams: 2, k: 2}
eval: {k: [1]}
"""
IDS = torch.arange(24).reshape(2, 12)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.dtype]]:
    """The types that torch's attention was given, in the order of its calls."""
    types: list[torch.dtype] = []
    library = functional.scaled_dot_product_attention

    def attention(query: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(query, FakeTensor):  # the planner's
            types.append(query.dtype)
        return library(query, *args, **kwargs)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    return types


def gradients(model: Any, mask: Any = None) -> list[torch.Tensor]:
    model.zero_grad()
    model(input_ids=IDS, attention_mask=mask, labels=IDS).loss.backward()
    return [parameter.grad.float() for parameter in model.parameters()]


@pytest.mark.parametrize("padded", [False, True])
def test_it_is_of_models_in_training_and_half_precision_alone(seen: list[torch.dtype], padded: bool) -> None:
    mask = torch.ones_like(IDS)
    mask[0, 9:] = 0
    model = build("llama", **LLAMA)
    with attention_in_float32():
        assert gradients(model.train(), mask if padded else None)
        half = build("llama", **LLAMA).to(torch.bfloat16).train()
        outputs = []
        half.model.layers[0].self_attn.o_proj.register_forward_pre_hook(
            lambda _, inputs: outputs.append(inputs[0].dtype)
        )
        assert gradients(half, mask if padded else None)
        layers = len(half.model.layers)
        assert seen == [torch.float32] * 2 * layers
        assert outputs == [torch.bfloat16]
        with torch.no_grad():
            half.eval()(input_ids=IDS)
        assert seen[2 * layers :] == [torch.bfloat16] * layers
    before = len(seen)
    gradients(half.train())
    assert seen[before:] == [torch.bfloat16] * layers


def test_the_library_has_its_own_again_after_an_error() -> None:
    library = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with attention_in_float32():
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not library
    with pytest.raises(KeyError), attention_in_float32():
        ALL_ATTENTION_FUNCTIONS["no such attention"]
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is library


def test_gradients_are_those_of_float32_but_for_rounding() -> None:
    exact = gradients(build("llama", **LLAMA).to(torch.bfloat16).float().train())
    with attention_in_float32():
        rounded = gradients(build("llama", **LLAMA).to(torch.bfloat16).train())
    off = sum(float((one - other).square().sum()) for one, other in zip(rounded, exact, strict=True)) ** 0.5
    assert off < 0.1 * sum(float(one.square().sum()) for one in exact) ** 0.5


def test_of_more_tokens_it_is_the_librarys(seen: list[torch.dtype]) -> None:
    model = build("llama", **LLAMA, max_position_embeddings=256).to(torch.bfloat16).train()
    with attention_in_float32():
        for tokens in (FEW, FEW + 1):
            model(input_ids=torch.arange(tokens)[None] % 20)
    layers = len(model.model.layers)
    assert seen == [torch.float32] * layers + [torch.bfloat16] * layers


def test_a_mask_of_scores_is_added_in_float32(seen: list[torch.dtype]) -> None:
    model = build("llama", **LLAMA).to(torch.bfloat16).train()
    causal = (
        torch.full((12, 12), torch.finfo(torch.bfloat16).min, dtype=torch.bfloat16)
        .triu(1)[None, None]
        .expand(2, 1, -1, -1)
    )
    with attention_in_float32():
        masked, plain = gradients(model, causal), gradients(model)
    assert set(seen) == {torch.float32}
    for one, other in zip(masked, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_a_training_on_a_cpu_has_it(seen: list[torch.dtype], tmp_path: Path) -> None:
    recipe = tmp_path / "half.yaml"
    recipe.write_text(RECIPE)
    tuned(recipe, str(tmp_path / "run"))
    assert seen[0] == torch.float32, seen
