"""What a training takes: against bytes counted by hand, and against the tensors that PyTorch really keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rectune.planning.need import StagePlan
from rectune.planning.quantised import QuantisedLinear
from rectune.planning.step import StepPeaks, StepShape, step_peaks

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


def llama(layers: int, *, device: str = "meta", vocabulary: int = 100) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "llama", **SIZES, num_hidden_layers=layers, vocab_size=vocabulary, tie_word_embeddings=False
    )
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config)


def plan_of(model: Any, **changes: Any) -> StagePlan:
    options: dict[str, Any] = {
        "device": "cuda", "optimiser": "adamw_torch_fused", "checkpointing": False, "checkpointing_arguments": None,
        "accumulates": False, "autocast": None, "target": 4, "fixed": 0,
    }  # fmt: skip
    return StagePlan(model=model, **{**options, **changes})


def test_weights_gradients_and_optimiser_of_full_tuning_are_the_parameters() -> None:
    # a layer: q and o 32 x 32, k and v 32 x 16, three of 32 x 64, two norms; two matrices of 100 x 32; one norm
    parameters = 3 * (2 * 1024 + 2 * 512 + 3 * 2048 + 64) + 2 * 3200 + 32
    plan = plan_of(llama(3))
    assert plan.parameters == plan.trainable == parameters
    need = plan.need(1, 2)
    assert need.moment == "forward"  # TRL's tile is larger than so small a model
    assert need.optimiser == 8 * parameters
    assert 4 * parameters <= need.weights <= 4 * parameters + 100  # and the rotary frequencies
    assert plan.gradients == 4 * parameters
    assert plan_of(llama(3), accumulates=True).need(1, 2).gradients == 4 * parameters


def test_deep_stacks_are_the_line_through_two_shallow_ones() -> None:
    shape = StepShape(rows=4, length=16, target=4, head="targets", accumulates=False, autocast=None, device="cpu")
    for checkpointing in (False, True):
        followed = plan_of(llama(7), checkpointing=checkpointing)
        extrapolated = step_peaks(followed.model, followed._mode, shape)
        from rectune.planning.step import _equal_layers, _follow

        whole = _follow(followed.model, followed._mode, shape, _equal_layers(followed.model))
        assert extrapolated == whole


def test_activations_are_those_that_autograd_keeps() -> None:
    """The body's bytes after a forward pass equal the storages that a real forward pass saves, parameters left out."""
    real = llama(2, device="cpu").train()
    own = {t.untyped_storage()._cdata for t in [*real.parameters(), *real.buffers()]}
    kept: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    ids, mask = torch.zeros(4, 16, dtype=torch.long), torch.ones(4, 1, 16, 16, dtype=torch.bool)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = real.model(input_ids=ids, attention_mask=mask, use_cache=False)
    saved = sum(storage.nbytes() for storage in kept.values())
    plan = plan_of(llama(2), device="cpu")
    shape = StepShape(rows=4, length=16, target=4, head="targets", accumulates=False, autocast=None, device="cpu")
    body = step_peaks(plan.model, plan._mode, shape).body
    assert out.last_hidden_state.shape == (4, 16, 32)
    assert body == pytest.approx(saved, rel=0.05)  # ids and mask are there as well


def test_checkpointing_keeps_less_and_a_longer_example_more() -> None:
    plain, checkpointed = plan_of(llama(8)), plan_of(llama(8), checkpointing=True)
    assert checkpointed.need(8, 64).activations < 0.5 * plain.need(8, 64).activations
    assert plain.need(8, 64).activations > 1.9 * plain.need(8, 32).activations


def test_scoring_only_targets_takes_fewer_positions() -> None:
    model, other = llama(4, vocabulary=5000), llama(4, vocabulary=5000)
    every, few = plan_of(model, head="library").need(4, 64), plan_of(other, head="targets").need(4, 64)
    # a tile is positions x 32,768 float32: 4 x 64 positions against 4 x 4
    assert every.logits - few.logits >= (4 * 64 - 4 * 4) * 32_768 * 4


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    plan = plan_of(llama(4))
    memory = plan.need(13, 64).total
    assert plan.largest_batch(memory, 64) == 13
    assert plan.largest_batch(memory - 1, 64) == 12
    assert plan.largest_batch(plan.need(1, 64).total - 1, 64) == 0


@pytest.mark.parametrize(
    ("bits", "nested", "size"),
    [
        (4, False, 128 * 64 // 2 + 128 * 64 // 64 * 4),
        (4, True, 128 * 64 // 2 + 128 * 64 // 64 + 4 * (128 * 64 // 64 // 256)),
        (8, False, 128 * 64 + 4 * 128),
    ],
)
def test_a_quantised_layer_has_the_bytes_of_its_packed_weights_and_scales(bits: int, nested: bool, size: int) -> None:
    layer = QuantisedLinear(nn.Linear(64, 128, bias=False), bits=bits, nested=nested, compute=torch.bfloat16)
    assert layer.weight.nbytes + layer.scales.nbytes == size


def test_bitsandbytes_packs_into_as_many_bytes() -> None:
    import bitsandbytes

    real = bitsandbytes.nn.Linear4bit(256, 512, bias=False, quant_type="nf4", compress_statistics=True)
    real.weight = bitsandbytes.nn.Params4bit(torch.randn(512, 256), quant_type="nf4", compress_statistics=True)
    real = real.to("cpu")
    state = real.weight.quant_state
    packed = QuantisedLinear(nn.Linear(256, 512, bias=False), bits=4, nested=True, compute=torch.bfloat16)
    assert real.weight.nbytes == packed.weight.nbytes
    assert state.absmax.nbytes + state.state2.absmax.nbytes == packed.scales.nbytes


def test_lines_go_on_evenly() -> None:
    assert StepPeaks(10, 5, 1, 7).deeper(StepPeaks(14, 5, 2, 9), 3) == StepPeaks(22, 5, 4, 13)


def test_preferences_take_several_sequences_an_example_and_a_copy_of_what_is_trained() -> None:
    plain, pairs = (
        plan_of(llama(3), head="targets"),
        plan_of(llama(3), head="targets", sequences=3, keeps_reference=True),
    )
    one, several = pairs.need(2, 32), plain.need(6, 32)
    assert one.activations == several.activations > 2 * plain.need(2, 32).activations
    assert one.weights == several.weights + plain.gradients


def test_a_group_takes_its_prompt_once() -> None:
    plain, groups = plan_of(llama(3), head="targets"), plan_of(llama(3), head="targets", group=4)
    assert groups.forwarded(8, 32) == (2, 32 + 3 * (groups.target - 1))
    assert groups.asked(*groups.forwarded(8, 32)) == (8, 32)
    assert groups.need(8, 32).activations < plain.need(8, 32).activations
    assert groups.need(8, 32).activations > plain.need(2, 32).activations
    assert groups.need(8, 32).weights == plain.need(8, 32).weights  # no reference is kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("on_all", [True, False])
@pytest.mark.parametrize("asked", [None, True, False])
def test_the_plan_scores_with_the_head_that_trains(asked: bool | None, on_all: bool, dtype: torch.dtype) -> None:
    from types import SimpleNamespace

    from rectune.methods.sft import wants_target_head
    from rectune.planning.stage import _head

    model = SimpleNamespace(dtype=dtype, device=torch.device("cpu"))
    config = SimpleNamespace(target_head=asked, completion_only_loss=not on_all)
    ours = wants_target_head(config, model, on_all=on_all)  # type: ignore[arg-type]
    assert _head(config, model, "cpu") == ("library" if not ours else "all" if on_all else "targets")
    assert _head(config, model, "cuda") == ("all" if on_all else "targets")
