"""New tokens are really trained, saved and reloaded: full, LoRA and QLoRA, tied and untied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import forked

RELOAD = """
import sys, warnings
warnings.simplefilter("ignore")
from rectune.methods.probe import check_reloaded
from rectune.model.adapters import load_tuned
from rectune.run.run import open_run
line = open_run(sys.argv[1])
tuned = line.tuned.folder / "model"
model = load_tuned(line.asked.model, line.place("base").folder, tuned, line.index, seed=line.asked.seed)
print("difference", check_reloaded(model, tuned)["largest_difference"])
"""

RECIPE = """
data: {call: synthetic, users: 60, items: 90, categories: 5, shortest: 6, longest: 10}
split: {call: leave_one_out, max_history: 6}
index: {call: atomic}
tasks:
  - {call: next_item, template: next-item.jinja}
  - {call: item_to_index, template: item-to-index.jinja}
  - {call: index_to_item, template: index-to-item.jinja, share: 0.5}
model: {model_name_or_path: BASE, dtype: float32}
stages:
  - {call: sft, max_steps: 6, learning_rate: 1.0e-2, per_device_train_batch_size: 8, max_length: 512, logging_steps: 1}
rank: {template: next-item.jinja, beams: 5, k: 5}
eval: {call: ranking, k: [5], shuffled_rows: 0, examples: 2}
output_dir: OUT
"""


def run_once(base: Path, out: Path, *overrides: tuple[str, str]) -> Path:
    from rectune.recipe.load import load_recipe
    from rectune.run.train import train

    recipe = out.parent / "audit.yaml"
    recipe.write_text(RECIPE.replace("BASE", str(base)).replace("OUT", str(out)))
    return train(load_recipe(recipe, overrides))


LORA = (("model.use_peft", "true"), ("model.lora_r", "4"), ("model.lora_dropout", "0.0"))
QLORA = (
    *LORA,
    ("model.load_in_4bit", "true"),
    ("model.dtype", "bfloat16"),  # in float32 the adapter, kept in bfloat16, is reloaded as float32: other sums
    ("stages.0.eval_strategy", "steps"),
    ("stages.0.eval_steps", "2"),
    ("stages.0.ranked_rows", "8"),
)

MIXED = (("stages.0.bf16", "true"), ("model.dtype", "bfloat16"))  # what a GPU does unasked


@pytest.mark.heavy
@pytest.mark.parametrize("which", ["tied", "untied"])
@pytest.mark.parametrize(
    ("name", "overrides"),
    [("full", ()), ("lora", LORA), ("lora in mixed precision", (*LORA, *MIXED)), ("qlora", QLORA)],
)
def test_new_tokens_are_trained_saved_and_reloaded_to_the_bit(
    checkpoints: dict[str, Path], tmp_path: Path, name: str, overrides: Any, which: str
) -> None:
    from safetensors.torch import load_file

    folder = run_once(checkpoints[which], tmp_path / "run", *overrides)
    (stage,) = folder.glob("stages/train0-*")
    audit = json.loads((stage / "audit.json").read_text())
    assert audit["new_tokens"] == 90
    assert audit["gradient_in"] > 0
    assert audit["gradient_out"] > 0
    if name != "full":
        saved = load_file(stage / "model" / "adapter_model.safetensors")
        rows = [key for key in saved if "trainable_tokens" in key]
        assert len(rows) == (1 if which == "tied" else 2)
        assert all(saved[key].shape[0] == 90 for key in rows)
        assert not [key for key, value in saved.items() if value.shape[0] >= 200]  # no whole embedding matrix
    out = forked("-c", RELOAD, str(folder))
    assert out.stdout.splitlines()[-1:] == ["difference 0.0"], out.stdout + out.stderr[-2000:]


@pytest.mark.heavy
def test_training_4_bit_layers_goes_on_after_an_evaluation_on_a_cpu(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    losses = []
    for name, evaluation in (("with", QLORA), ("without", (*QLORA[:-3], ("stages.0.eval_strategy", "no")))):
        (tmp_path / name).mkdir()
        folder = run_once(checkpoints["tied"], tmp_path / name / "run", *evaluation)
        (stage,) = folder.glob("stages/train0-*")
        log = json.loads((stage / "log_history.json").read_text())
        losses.append([entry["loss"] for entry in log if "loss" in entry])
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


def test_frozen_new_tokens_are_an_error(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from rectune.methods.token_audit import TokenAudit

    model = AutoModelForCausalLM.from_pretrained(checkpoints["untied"])
    model.get_output_embeddings().weight.requires_grad_(False)
    new = [model.config.vocab_size - 2, model.config.vocab_size - 1]
    ids = torch.tensor([[1, *new, 2]])
    model(input_ids=ids, labels=ids).loss.backward()
    with pytest.raises(ValueError, match="no gradient reaches the output rows of the 2 new tokens"):
        TokenAudit(new, tmp_path / "x.json").on_pre_optimizer_step(None, None, None, model=model)


def test_an_adapter_with_a_whole_matrix_is_an_error(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from rectune.methods.token_audit import check_saved

    model = AutoModelForCausalLM.from_pretrained(checkpoints["tied"])
    whole = model.get_input_embeddings().weight.detach().clone()
    save_file({"base_model.model.embed_tokens.weight": whole}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="the adapter holds the whole matrix"):
        check_saved(tmp_path, model, [3], adapter=True)
    save_file({"lora_A.weight": whole[:3].clone()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="does not hold the rows of the new tokens"):
        check_saved(tmp_path, model, [3], adapter=True)


@pytest.mark.heavy
def test_an_adapter_on_another_base_or_prompt_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from rectune.run.run import open_run

    folder = run_once(checkpoints["tied"], tmp_path / "run", *LORA)
    (stage,) = folder.glob("stages/train0-*")
    card = stage / "model" / "rectune.json"
    good = json.loads(card.read_text())
    for other, message in (
        ({"templates": {"next-item.jinja": "other"}}, "was tuned with another text of `next-item.jinja`"),
        ({"templates": {"other.jinja": "other"}}, "was not tuned with `next-item.jinja`"),
        ({"base": "other"}, "was tuned on the base `other`"),
    ):
        card.write_text(json.dumps({**good, **other}))
        with pytest.raises(ValueError, match=message):
            open_run(folder).models["tuned"]
    card.write_text(json.dumps(good))
    from safetensors.torch import load_file, save_file

    weights = stage / "model" / "adapter_model.safetensors"
    save_file({k: v + 3.0 for k, v in load_file(weights).items()}, weights)
    with pytest.raises(ValueError, match="gives other logits than at the end of its training"):
        open_run(folder).models["tuned"]


def test_new_rows_start_from_the_words_they_stand_for(checkpoints: dict[str, Path]) -> None:
    import numpy as np
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rectune.indexing.item_index import from_levels
    from rectune.model.new_tokens import add_tokens, new_token_ids, start_new_tokens

    model = AutoModelForCausalLM.from_pretrained(checkpoints["untied"])
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["untied"])
    index = from_levels(np.array([[0], [1]], dtype=np.int32), meanings=[["Apple Bread", ""]])
    add_tokens(tokenizer, index.vocabulary)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    start_new_tokens(model, tokenizer, index, seed=0)
    first, second = new_token_ids(tokenizer, index)
    words = tokenizer("Apple Bread", add_special_tokens=False)["input_ids"]
    words = [w for w in words if w != tokenizer.bos_token_id]
    for matrix in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        torch.testing.assert_close(matrix[first], matrix[words].mean(0))
        assert not torch.equal(matrix[second], matrix[first])
