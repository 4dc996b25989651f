"""Adapters on quantised bases: what is cast, what is frozen, where gradients arrive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rectune.indexing.item_index import ItemIndex, from_levels
from rectune.model.adapters import with_adapter
from rectune.model.load import build_base, load_base, load_tokenizer
from rectune.model.new_tokens import new_token_ids
from rectune.model.settings import ModelSettings, unquantised

INDEX: ItemIndex = from_levels(np.array([[i % 3, i // 3] for i in range(9)], dtype=np.int32))


@dataclass
class Step:
    """One training step of an adapter: its loss, its gradients by name, and the model."""

    loss: float
    gradients: dict[str, torch.Tensor]
    model: Any

    def difference(self, other: Step) -> float:
        """Length of the difference of all gradients, relative to the other's."""
        assert self.gradients.keys() == other.gradients.keys()
        ours, theirs = (torch.cat([g.flatten() for g in step.gradients.values()]) for step in (self, other))
        return float((ours - theirs).norm() / theirs.norm())


def settings_of(checkpoint: Path, **fields: Any) -> ModelSettings:
    from trl import ModelConfig

    library = ModelConfig(
        model_name_or_path=str(checkpoint), dtype="bfloat16", use_peft=True, lora_r=4, lora_dropout=0.0
    )
    return ModelSettings(replace(library, **fields), None, 4096, "plain", "cpu")


QUANTISED = {"load_in_4bit": True, "use_bnb_nested_quant": True}


def one_step(settings: ModelSettings, folder: Path, *, checkpointing: bool = False, cast: bool = False) -> Step:
    """Train one step with TRL's SFTTrainer; `cast`: first what PEFT prepares quantised models with."""
    from datasets import Dataset
    from peft import prepare_model_for_kbit_training
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    base = folder / "base"
    if not base.exists():
        base.mkdir(parents=True)
        build_base(settings, INDEX, [], base, seed=0)
    tokenizer = load_tokenizer(base)
    new = new_token_ids(tokenizer, INDEX)
    model = load_base(settings, base, INDEX, seed=0)
    if cast:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = with_adapter(model, settings, new, seed=0)
    draw = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # it starts at 0, and then no gradient reaches lora_A
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=draw).to(parameter.dtype)
    texts = [torch.randint(3, len(tokenizer) - len(new), (12,), generator=draw).tolist() for _ in range(8)]
    rows = [text + [new[(number + i) % len(new)] for i in range(12)] for number, text in enumerate(texts)]
    found: dict[str, torch.Tensor] = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            found.update({n: p.grad.float().clone() for n, p in model.named_parameters() if p.grad is not None})

    config = SFTConfig(
        output_dir=str(folder / "out"), use_cpu=True, bf16=False, max_steps=1, per_device_train_batch_size=8, logging_steps=1,
        activation_checkpointing=checkpointing, report_to="none", save_strategy="no", max_grad_norm=1e9, disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    data = Dataset.from_dict({"input_ids": rows, "labels": rows})
    trainer = SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer, callbacks=[Keep()])
    trainer.train()
    return Step(float(trainer.state.log_history[0]["loss"]), found, trainer.model)


@pytest.mark.heavy
@pytest.mark.parametrize("which", ["tied", "untied"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_embeddings_and_head_of_a_quantised_model_keep_their_dtype_and_every_adapter_weight_gets_gradient(
    checkpoints: dict[str, Path], tmp_path: Path, which: str, checkpointing: bool
) -> None:
    step = one_step(settings_of(checkpoints[which], **QUANTISED), tmp_path, checkpointing=checkpointing)
    kept = {name: p for name, p in step.model.named_parameters() if not p.requires_grad}
    assert {p.dtype for p in kept.values()} == {torch.bfloat16, torch.uint8}  # uint8 holds two 4-bit weights
    assert {n for n, p in kept.items() if p.dtype == torch.bfloat16} == {
        n for n in kept if "norm" in n or "embed_tokens" in n or "lm_head" in n
    }
    trained = {name for name, p in step.model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "trainable_tokens" in name for name in trained)
    assert sum("trainable_tokens" in name for name in trained) == (1 if which == "tied" else 2)
    assert trained == set(step.gradients)
    assert all(gradient.abs().sum() > 0 for gradient in step.gradients.values())


@pytest.mark.heavy
@pytest.mark.parametrize("which", ["tied", "untied"])
def test_loss_and_gradients_are_those_of_float32_embeddings_but_for_rounding(
    checkpoints: dict[str, Path], tmp_path: Path, which: str
) -> None:
    quantised = settings_of(checkpoints[which], **QUANTISED)
    ours = one_step(quantised, tmp_path / "quantised")
    cast = one_step(quantised, tmp_path / "quantised", cast=True)
    assert any(p.dtype == torch.float32 and "embed_tokens" in n for n, p in cast.model.named_parameters())
    assert ours.loss == pytest.approx(cast.loss, rel=2**-8)  # one unit in the last place of bfloat16
    # The yardstick: what bfloat16 instead of float32 changes in a model that is not quantised.
    half, single = (
        one_step(settings_of(checkpoints[which], dtype=dtype), tmp_path / dtype) for dtype in ("bfloat16", "float32")
    )
    assert 0 < ours.difference(cast) < 2 * half.difference(single)


@pytest.mark.heavy
def test_checkpointing_activations_changes_no_gradient(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    settings = settings_of(checkpoints["untied"], **QUANTISED)
    off, on = (one_step(settings, tmp_path, checkpointing=checkpointing) for checkpointing in (False, True))
    assert on.loss == off.loss
    assert on.difference(off) == 0


@pytest.mark.heavy
@pytest.mark.parametrize("which", ["tied", "untied"])
def test_new_tokens_start_alike_on_the_quantised_and_the_plain_base(
    checkpoints: dict[str, Path], tmp_path: Path, which: str
) -> None:
    settings = settings_of(checkpoints[which], **QUANTISED)
    build_base(settings, INDEX, [], tmp_path, seed=0)
    new = new_token_ids(load_tokenizer(tmp_path), INDEX)
    quantised, plain = (load_base(s, tmp_path, INDEX, seed=3) for s in (settings, unquantised(settings)))
    assert {type(m).__name__ for m in plain.modules()}.isdisjoint({"Linear4bit"})
    for side in ("get_input_embeddings", "get_output_embeddings"):
        ours, theirs = (getattr(model, side)().weight for model in (plain, quantised))
        assert ours.dtype == theirs.dtype == torch.bfloat16
        assert torch.equal(ours[new], theirs[new])


def test_a_base_without_quantisation_has_the_recipes_dtype_or_bfloat16(checkpoints: dict[str, Path]) -> None:
    for named, found in (("float32", "float32"), ("auto", "bfloat16"), (None, "bfloat16")):
        settings = unquantised(settings_of(checkpoints["tied"], load_in_4bit=True, dtype=named))
        assert (settings.library.load_in_4bit, settings.library.dtype) == (False, found)
    plain = settings_of(checkpoints["tied"], dtype="auto")
    assert unquantised(plain) is plain
