"""Preference tuning: the losses beside plain PyTorch, the reference, and whole runs. What is rejected is in test_rejected.py."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional

from rectune.cli import main
from rectune.decoding.language_model import LanguageModelRanker
from rectune.decoding.shelf import ALL
from rectune.methods import dpo, s_dpo
from rectune.methods.preference import PreferenceTrainer
from tests.conftest import QUICK
from tests.runs import bandit_log, killed_at_a_step, results, same_gradients
from tests.test_cli import fails

VOCABULARY = 60
EXAMPLES = [
    {"prompt_ids": [5, 6, 7], "chosen_ids": [50, 51], "rejected_ids": [[52, 53], [50, 53], [54, 51]]},
    {"prompt_ids": [8], "chosen_ids": [54, 53, 2], "rejected_ids": [[55, 2], [52, 51, 50, 2], [53, 2]]},
]


def small_model(kind: str) -> Any:
    """A tiny decoder: tuned in full, or by LoRA with trained rows for tokens 50 to 55."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, 0, 0.2)
    if kind == "full":
        return model
    lora = LoraConfig(r=4, target_modules="all-linear", trainable_token_indices=list(range(50, 56)))
    model = get_peft_model(model, lora)
    move(model)  # as a stage before has left it: the reference is not the base
    return model


@torch.no_grad()
def move(model: Any) -> None:
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.add_(0.1 * torch.randn_like(weight))


def trainer_of(method: Any, model: Any, folder: Path, **keys: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    from rectune.model.new_tokens import train_tokenizer

    tokenizer: PreTrainedTokenizerFast = train_tokenizer(["a b c"], 300)
    config = method.Config(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to="none",
        remove_unused_columns=False,
        beta=0.7,
        **keys,
    )
    kind, collator = (s_dpo.Trainer, s_dpo.Sets(0)) if method is s_dpo else (PreferenceTrainer, dpo.Pairs(0))
    return kind(model, args=config, processing_class=tokenizer, data_collator=collator, train_dataset=Dataset.from_list(EXAMPLES))  # fmt: skip


def log_probability(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    ids = torch.tensor([[*prompt, *answer]])
    logp = model(input_ids=ids).logits[0].log_softmax(-1)
    at = torch.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return logp[at, ids[0, len(prompt) :]].sum()


def by_hand(policy: Any, before: Any, negatives: int, loss_type: str = "sigmoid") -> torch.Tensor:
    """The loss of DPO (one negative) or S-DPO, without padding, batches or tricks."""
    losses = []
    for example in EXAMPLES:
        prompt = example["prompt_ids"]

        def reward(answer: Any, prompt: Any = prompt) -> torch.Tensor:
            with torch.no_grad():
                reference = log_probability(before, prompt, answer)
            return 0.7 * (log_probability(policy, prompt, answer) - reference)

        chosen = reward(example["chosen_ids"])
        rejected = torch.stack([reward(answer) for answer in example["rejected_ids"][:negatives]])
        if loss_type == "hinge":
            losses.append(torch.relu(1 - (chosen - rejected[0])))
        else:
            losses.append(-functional.logsigmoid(-torch.log(torch.exp(rejected - chosen).sum())))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize(
    ("method", "negatives", "keys"),
    [
        (dpo, 1, {}),
        (dpo, 1, {"loss_type": ["hinge"]}),
        (s_dpo, 3, {"negatives_each": 3}),
        (s_dpo, 1, {"negatives_each": 1}),
    ],
)
def test_losses_and_gradients_are_those_of_plain_pytorch(
    method: Any, negatives: int, keys: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    policy = small_model(kind)
    before, plain = copy.deepcopy(policy).eval(), copy.deepcopy(policy)
    trainer = trainer_of(method, policy, tmp_path, **keys)
    for model in (policy, plain):
        move(model)  # the policy has gone on from its reference
        model.eval()
    examples = [{**e, "rejected_ids": e["rejected_ids"][:negatives]} for e in EXAMPLES]
    loss = trainer._compute_loss(policy, trainer.data_collator(examples), False)
    loss.backward()
    expected = by_hand(plain, before, negatives, keys.get("loss_type", ["sigmoid"])[0])
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    same_gradients(policy, plain, rtol=1e-4)
    if kind == "lora":
        assert policy.peft_config.keys() == {"default"}  # no second adapter is saved beside the first


def test_one_negative_is_dpo(tmp_path: Path) -> None:
    losses = []
    for method, keys in ((dpo, {}), (s_dpo, {"negatives_each": 1})):
        policy = small_model("lora")
        trainer = trainer_of(method, policy, tmp_path, **keys)
        move(policy)
        examples = [{**e, "rejected_ids": e["rejected_ids"][:1]} for e in EXAMPLES]
        losses.append(float(trainer._compute_loss(policy.eval(), trainer.data_collator(examples), False).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] != pytest.approx(float(np.log(2)), rel=1e-3)  # it says something


def test_the_softmax_loss_is_finite_where_a_sum_of_exponentials_is_not() -> None:
    chosen = torch.tensor([0.0, 0.0], requires_grad=True)
    rejected = torch.tensor([[900.0, -900.0], [900.0, -900.0]], requires_grad=True)
    loss = s_dpo.softmax_loss(chosen, rejected)
    loss.backward()
    assert float(loss.detach()) == pytest.approx((900 + np.log(2)) / 2)
    assert torch.isfinite(chosen.grad).all()
    assert torch.isfinite(rejected.grad).all()
    assert float(chosen.grad[0]) == pytest.approx(-0.5, abs=1e-4)


# ---------------------------------------------------------------------------------------------------------- whole runs

STAGE = """
tasks: [{call: next_item, template: next-item-names.jinja}]
stages:
  - {call: sft, completion_only_loss: true, max_steps: 4, per_device_train_batch_size: 8, learning_rate: 1.0e-2, max_length: 128}
  - call: METHOD
    negatives: NEGATIVES
    max_steps: 6
    per_device_train_batch_size: 8
    train_sampling_strategy: group_by_length
    learning_rate: 1.0e-3
    max_length: 128
    logging_steps: 1
    save_strategy: steps
    save_steps: 2
    eval_strategy: steps
    eval_steps: 3
    eval_on_start: true
    ranked_rows: 20
"""
LORA = """
model: {from_scratch: null, model_name_or_path: BASE, use_peft: true, lora_r: 4, lora_target_modules: [all-linear], prompt_form: plain}
"""


@pytest.mark.parametrize(
    ("method", "negatives", "lora"), [("dpo", "popular", True), ("s_dpo", "ranked", True), ("s_dpo", "ranked", False)]
)
def test_a_run_tunes_by_preferences_and_goes_on_after_a_kill(
    method: str,
    negatives: str,
    lora: bool,
    tmp_path: Path,
    checkpoints: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tmp_path / "own.yaml"
    text = QUICK.split("stages:")[0] + STAGE.replace("METHOD", method).replace("NEGATIVES", negatives)
    text += "\nrank: {batch_tokens: 1024, beams: 10, k: 5}\neval: {k: [1, 5], shuffled_rows: 0}\n"
    if lora:
        text = (
            text[: text.index("model:")] + text[text.index("tasks:") :] + LORA.replace("BASE", str(checkpoints["tied"]))
        )
    recipe.write_text(text)
    listed, plain = [], LanguageModelRanker.rank

    def rank(self: Any, rows: Any, shelf: Any = ALL, *, shards: Path | None = None) -> Any:
        if "lists-train" in str(shards):
            listed.append((len(rows), self.progress))
        return plain(self, rows, shelf, shards=shards)

    monkeypatch.setattr(LanguageModelRanker, "rank", rank)
    stage = killed_at_a_step(recipe, PreferenceTrainer, tmp_path, monkeypatch)
    # six steps of eight of the several hundred rows, once in each attempt, and so that one sees how far it is
    assert listed == ([(48, True)] * 3 if negatives == "ranked" else [])
    history = json.loads((stage / "log_history.json").read_text())
    first = next(entry for entry in history if "loss" in entry)
    assert {"rewards/margins", "rewards/accuracies"} <= first.keys()
    assert first["loss"] == pytest.approx(np.log(2 if method == "dpo" else 4), rel=1e-3)  # policy and reference are one
    # what was before the first step is measured once, and not again where a killed training goes on
    assert [entry["step"] for entry in history if "eval_ndcg@10" in entry] == [0, 3, 6]
    assert json.loads((stage / "audit.json").read_text())["gradient_in"] > 0
    assert not list(stage.glob("model/ref*"))
    assert not list(stage.rglob("lists*"))


def test_a_run_rejects_what_a_log_of_events_says_was_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, lines = np.random.default_rng(0), ["user,item,time,event"]
    for user in range(40):
        for n, item in enumerate(rng.permutation(30)[:7]):
            lines += [f"u{user},i{other},{10 * n},view" for other in (*rng.permutation(30)[:4], item) if user]
            lines.append(f"u{user},i{item},{10 * n + 1},buy")
    (tmp_path / "log.csv").write_text("\n".join(lines))
    text = BANDIT.replace(
        "path: log.csv, time: time, items_path: items.csv",
        f"path: {tmp_path}/log.csv, time: time, where: {{event: buy}}, shown: {{event: view}}",
    )
    text = (
        text.replace("negatives_each: 15", "negatives: shown, negatives_each: 2")
        .replace("max_steps: 250", "max_steps: 3")
        .replace("output_dir: run", f"output_dir: {tmp_path}/run")
    )
    recipe = tmp_path / "shown.yaml"
    recipe.write_text(text)
    with pytest.warns(UserWarning, match=r"task `next_item`: in 4 of 160 rows fewer than 2 items were shown"):
        assert main(["train", str(recipe)]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["results"]["log"]["shown"] == 39 * 7 * 5
    refused = fails(capsys, "train", str(recipe), "--data.shown", "null", "--output_dir", str(tmp_path / "other"))
    assert "task `next_item` does not tell what its users were shown until then" in refused


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        ("s_dpo", ["--stages.1.negatives", "seen"], "`stages.1.negatives`: got 'seen', but it must be one of 'random', 'popular', 'ranked'"),
        ("s_dpo", ["--stages.1.loss_type", "[hinge]"], "the loss of `s_dpo` is the softmax over its negatives"),
        ("s_dpo", ["--stages.1.negatives_each", "11"], "`negatives_each` is 11, and the model's own lists hold 10 items"),
        ("s_dpo", ["--stages.1.tasks", "[{call: next_item, template: next-item.jinja}]"], "lists items by `next-item-names.jinja` (`rank.template`), and `stages.1.tasks.0`"),
        ("dpo", ["--stages.1.loss_type", "[hing]"], "`loss_type`: there is no loss 'hing'. Did you mean `hinge`?"),
        ("dpo", ["--stages.1.loss_type", "[exo_pair]"], "`label_smoothing` must be above 0 with `loss_type: exo_pair`"),
        ("dpo", ["--stages.1.loss_weights", "[1, 2]"], "`loss_weights` must have the same length as `loss_type`"),
        ("dpo", ["--stages.1.beta", "0"], "`stages.1.beta`: got 0.0, but it must be a number above 0"),
        ("dpo", ["--stages.1.sync_ref_model", "true"], "the reference is the model as the stage began"),
        ("dpo", ["--stages.1.pad_to_multiple_of", "8"], "batches of preferences are padded to their longest"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_before_anything_is_built(
    method: str, more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = QUICK.split("stages:")[0] + STAGE.replace("METHOD", method).replace("NEGATIVES", "ranked")
    (tmp_path / "own.yaml").write_text(text + f"\nrank: {{beams: 10, k: 5}}\noutput_dir: {tmp_path / 'run'}\n")
    assert message in fails(capsys, "train", str(tmp_path / "own.yaml"), *more)
    assert not (tmp_path / "run").exists()


def test_dropout_is_left_out_that_of_attention_too(tmp_path: Path) -> None:
    for left_out in (True, False):
        policy = small_model("full")
        for layer in policy.model.layers:
            layer.self_attn.attention_dropout = 0.5
        trainer_of(dpo, policy, tmp_path, disable_dropout=left_out)
        assert {layer.self_attn.attention_dropout for layer in policy.model.layers} == {0.0 if left_out else 0.5}


def test_dropout_that_is_a_number_of_a_layer_is_left_out() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from rectune.methods.training import without_dropout

    config = AutoConfig.for_model(
        "opt",
        vocab_size=60,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        word_embed_proj_dim=16,
        dropout=0.5,
    )
    model, ids = AutoModelForCausalLM.from_config(config).train(), torch.tensor([[5, 6, 7]])
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    without_dropout(model)
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_the_reference_has_no_dropout(tmp_path: Path) -> None:
    policy = small_model("full")
    trainer = trainer_of(dpo, policy.train(), tmp_path)
    for layer in policy.model.layers:
        layer.self_attn.attention_dropout = 0.5
    batch = trainer.data_collator(EXAMPLES)
    asked = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    assert torch.equal(trainer.ref_model(**asked).logits, trainer.ref_model(**asked).logits)
    assert policy.training


BANDIT = """
include: quickstart.yaml
data: {call: table, path: log.csv, time: time, items_path: items.csv}
split: {call: leave_one_out, max_history: 1}
vectors: null
index: {call: atomic}
tasks: [{call: next_item, template: next-item-names.jinja}]
model:
  from_scratch: {hidden_size: 48, intermediate_size: 96, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2, head_dim: 24}
stages:
  - {call: s_dpo, negatives_each: 15, beta: 1.0, max_steps: 120, per_device_train_batch_size: 50, learning_rate: 1.0e-2, max_length: 16}
rank: {beams: 10, k: 5}
eval: {k: [1], shuffled_rows: 0, oracle: null}
output_dir: run
"""


def test_a_bandit_whose_best_policy_is_known_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After item n comes item n + 7 (mod 50): preferences alone tell a random policy so."""
    monkeypatch.chdir(tmp_path)
    bandit_log()
    Path("bandit.yaml").write_text(BANDIT)
    assert main(["train", "bandit.yaml", "--traceback"]) == 0
    row = results(tmp_path / "run")["protocols"]["seen items hidden"][
        "tuned model"
    ]  # of what its user has taken, nothing was rejected
    assert row["recall@1"][0] >= 0.95
