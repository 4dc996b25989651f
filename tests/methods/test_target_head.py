"""The head on labelled positions only: the same loss and gradients as the whole sequence."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, set_seed
from trl.trainer.utils import add_fused_lm_head

from rectune.methods import target_head
from rectune.methods.target_head import put_target_head

KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
    "llama, untied": {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": False},
    "gemma2, soft cap": {"model_type": "gemma2", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "final_logit_softcapping": 2.0},
    "granite, scaled": {"model_type": "granite", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "logits_scaling": 4.0},
}  # fmt: skip
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 0, 0]])
LABELS = torch.tensor([[-100, -100, -100, 8, 9, 10], [-100, -100, 13, 14, -100, -100]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def made(kind: str) -> Any:
    set_seed(0)
    fields = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**KINDS[kind], **fields)).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def fused(model: Any, labels: torch.Tensor = LABELS) -> Any:
    return model(input_ids=IDS, attention_mask=MASK, labels=labels, fused_lm_head=True, use_cache=False)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", [2**26, 50], ids=["one piece", "a position a piece"])
def test_loss_and_gradients_equal_those_of_the_whole_sequence(
    kind: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_head, "PIECE", piece)
    plain = made(kind)
    theirs, ours = copy.deepcopy(plain), copy.deepcopy(plain)
    add_fused_lm_head(theirs, outputs=("log_probs", "entropy", "is_top1"))
    add_fused_lm_head(ours, outputs=("log_probs", "entropy", "is_top1"))
    put_target_head(ours)
    a, b = fused(theirs), fused(ours)
    for name in ("log_probs", "entropy", "is_top1", "label_mask"):
        torch.testing.assert_close(a[name].float(), b[name].float(), atol=1e-5, rtol=1e-5)
    whole = plain(input_ids=IDS, attention_mask=MASK, labels=LABELS).loss
    torch.testing.assert_close(-b.log_probs.sum() / 5, whole, atol=1e-5, rtol=1e-5)
    (-a.log_probs.sum()).backward()
    (-b.log_probs.sum()).backward()
    left, right = gradients(theirs), gradients(ours)
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], atol=1e-5, rtol=1e-5)


def test_logits_are_made_for_the_labelled_positions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("gpt2")
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    put_target_head(model)
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, out: rows.append(out.shape[0]))
    fused(model)
    assert rows == [5]


def test_a_batch_without_labels_gives_a_zero_loss_with_gradients() -> None:
    model = made("gpt2")
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    put_target_head(model)
    loss = fused(model, torch.full_like(LABELS, -100)).log_probs.sum()
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(float(g.abs().sum()) == 0.0 for g in gradients(model).values())


def test_other_calls_stay_as_they_were() -> None:
    model = made("llama, untied").eval()
    before = model(input_ids=IDS).logits
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    put_target_head(model)
    torch.testing.assert_close(model(input_ids=IDS).logits, before)


def test_trained_rows_of_new_tokens_under_an_adapter_get_the_same_gradients() -> None:
    from peft import LoraConfig, get_peft_model

    sides = []
    for own in (False, True):
        set_seed(0)
        config = LoraConfig(
            task_type="CAUSAL_LM", target_modules="all-linear", r=2, trainable_token_indices={"embed_tokens": [8, 9], "lm_head": [8, 9]}
        )  # fmt: skip
        model = get_peft_model(made("llama, untied"), config)
        model.get_output_embeddings().bias = None
        add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "entropy", "is_top1"))
        if own:
            put_target_head(model)
        (-fused(model).log_probs.sum()).backward()
        sides.append(gradients(model))
    assert sides[0].keys() == sides[1].keys()
    assert any("trainable_tokens" in name for name in sides[0])
    for name in sides[0]:
        torch.testing.assert_close(sides[0][name], sides[1][name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("on_all", [False, True])
@pytest.mark.parametrize("asked", [None, True, False])
def test_our_head_is_the_default_where_the_library_s_does_more(
    dtype: torch.dtype, on_all: bool, asked: bool | None
) -> None:
    from rectune.methods.sft import wants_target_head

    config: Any = SimpleNamespace(target_head=asked)
    expected = asked if asked is not None else not on_all or dtype == torch.bfloat16
    assert wants_target_head(config, made("gpt2").to(dtype), on_all=on_all) == expected


def test_a_loss_on_all_tokens_in_bfloat16_is_that_of_the_library() -> None:
    labels = torch.where(MASK == 1, IDS, -100)
    losses, slopes = [], []
    for own in (False, True):
        model = made("llama, untied").to(torch.bfloat16)
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
        if own:
            put_target_head(model)
        loss = -fused(model, labels).log_probs.sum()
        loss.backward()
        losses.append(float(loss.detach()))
        slopes.append(torch.cat([g.float().flatten() for g in gradients(model).values()]))
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert float(torch.nn.functional.cosine_similarity(*slopes, 0)) > 0.999
