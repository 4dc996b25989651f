"""Whole runs of GRPO: killed and gone on with, what is refused, and a bandit that is learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rectune.cli import main
from rectune.decoding.rollouts import Rollouts
from rectune.decoding.trie import build_trie
from rectune.methods import grpo
from rectune.methods.group_trainer import GroupTrainer, Prompts
from rectune.methods.rewards import hit
from rectune.prompts.template import load_template
from rectune.tasks.examples import Mixture, TaskSpec
from tests.conftest import QUICK
from tests.methods.test_group_trainer import own_nan, own_short
from tests.methods.test_preference import LORA
from tests.prompts.test_assembled import CODED, CODES, encoder_of, rows_of
from tests.runs import bandit_log, killed_at_a_step, results
from tests.test_cli import fails
from tests.test_docs import ROOT

STAGE = """
tasks: [{call: next_item, template: next-item-names.jinja}]
stages:
  - {call: sft, completion_only_loss: true, max_steps: 30, per_device_train_batch_size: 16, learning_rate: 1.0e-2, max_length: 128}
  - call: grpo
    rewards: [hit, rank, similarity]
    reward_weights: [1.0, 1.0, 0.1]
    num_generations: 4
    beta: 0.04
    max_steps: 6
    per_device_train_batch_size: 16
    learning_rate: 1.0e-3
    max_length: 128
    logging_steps: 1
    save_strategy: steps
    save_steps: 2
    eval_strategy: steps
    eval_steps: 3
    ranked_rows: 20
"""
RANK = "\nrank: {batch_tokens: 1024, beams: 10, k: 5}\neval: {k: [1, 5], shuffled_rows: 0}\n"


@pytest.mark.parametrize(
    ("more", "lora"),
    [
        ({}, True),
        ({"rollouts": "without_replacement", "hints": 1, "num_iterations": 2}, False),
        ({"rollouts": "independent", "gradient_accumulation_steps": 2}, False),
        (
            {
                "rollouts": "independent",
                "gradient_accumulation_steps": 2,
                "steps_per_generation": 3,
                "num_iterations": 2,
                "save_steps": 1,
            },
            False,
        ),
    ],
)
def test_a_run_is_tuned_by_rewards_and_goes_on_after_a_kill(
    more: dict[str, Any], lora: bool, tmp_path: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "own.yaml"
    stage = STAGE.replace("    save_steps: 2\n", "") if "save_steps" in more else STAGE
    text = QUICK.split("stages:")[0] + stage + "".join(f"    {key}: {value}\n" for key, value in more.items()) + RANK
    if lora:
        text = (
            text[: text.index("model:")] + text[text.index("tasks:") :] + LORA.replace("BASE", str(checkpoints["tied"]))
        )
    recipe.write_text(text)
    stage = killed_at_a_step(recipe, GroupTrainer, tmp_path, monkeypatch)
    before, tuned = (next((tmp_path / "whole" / "stages").glob(f"train{n}-*/model/*model.safetensors")) for n in (0, 1))
    assert tuned.read_bytes() != before.read_bytes()
    history = json.loads((stage / "log_history.json").read_text())
    said = {"reward", "kl", "entropy", "frac_reward_zero_std", "rollouts/hit", "rewards/rank/mean"}
    assert said | ({"rollouts/hinted"} if "hints" in more else set()) <= history[0].keys()
    assert not [key for key in history[0] if key.startswith("completions/")]
    assert history[0]["kl"] == pytest.approx(0, abs=1e-6)  # policy and reference are one
    assert any("eval_ndcg@5" in entry or "eval_ndcg@10" in entry for entry in history)
    assert json.loads((stage / "audit.json").read_text())["gradient_in"] > 0
    assert json.loads((stage / "measured.json").read_text())["tokens"] > 0
    assert not list(stage.glob("model/ref*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--stages.1.num_generations", "1"], "`stages.1.num_generations`: got 1, but it must be a number from 2 on"),
        (["--stages.1.per_device_train_batch_size", "6"], "`per_device_train_batch_size` counts items, and is 6; it must be a multiple of a group"),
        (["--stages.1.rewards", "[hits, hit, rank]"], "): `rewards`: there is no `hits`. Did you mean `hit`?"),
        (["--stages.1.rewards", "[hit]"], "`reward_weights` has 3 numbers for 1 `rewards`"),
        (["--stages.1.rewards", "[hit, rank, prior]"], "it reads the run's prior, and the recipe has no section `rank.prior`"),
        (["--vectors", "null", "--index", "{call: atomic}"], "it reads the run's vectors, and the recipe has no section `vectors`"),
        (["--stages.1.rollouts", "sampled"], "`stages.1.rollouts`: got 'sampled', but it must be one of 'beams', 'independent', 'without_replacement'"),
        (["--stages.1.temperature", "0.5"], "`temperature` is for drawn items; `rollouts: beams` takes the best ones"),
        (["--stages.1.rollouts", "independent", "--stages.1.log_probs", "vocabulary"], "`log_probs: vocabulary` does not go with drawn items"),
        (["--stages.1.loss_type", "gpo"], "`loss_type`: there is no 'gpo'. Did you mean"),
        (["--stages.1.use_vllm", "true"], "items are rolled out by the search under the trie, not by `generate`"),
        (["--stages.1.scale_rewards", "grop"], "`scale_rewards`: there is no 'grop'. Did you mean `group`?"),
        (["--stages.1.importance_sampling_level", "sequnce"], "`importance_sampling_level`: there is no 'sequnce'. Did you mean `sequence`?"),
        (["--stages.1.top_entropy_quantile", "-1"], "`stages.1.top_entropy_quantile`: got -1"),
        (["--stages.1.train_sampling_strategy", "group_by_length"], "the items of a group stay together"),
        (["--stages.1.sync_ref_model", "true"], "the reference is the model as the stage began"),
        (["--stages.1.tasks", "[{call: next_item, template: next-item.jinja}]"], "`stages.1.tasks.0` ends its answers otherwise than `next-item-names.jinja`"),
        (["--stages.1.rewards", "[json:dumps, hit, rank]"], "`dumps` begins with (obj), but functions of this section are called with (groups)"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_before_anything_is_built(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = QUICK.split("stages:")[0] + STAGE + RANK
    (tmp_path / "own.yaml").write_text(text + f"output_dir: {tmp_path / 'run'}\n")
    assert message in fails(capsys, "train", str(tmp_path / "own.yaml"), *more)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--stages.1.rewards", "[hit, rank, OWN:half]"], "the reward `OWN:half` gave nan for item"),
        (["--stages.1.num_generations", "400", "--stages.1.per_device_train_batch_size", "400"], "`num_generations` is 400, and the catalogue has"),
        (["--stages.1.tasks", "[{call: next_item, template: OWN.jinja}]"], "its template writes the target otherwise than that of `rank`"),
    ],
)  # fmt: skip
def test_what_shows_with_the_data_is_one_line(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ownreward.py").write_text(
        "import numpy as np\n\n\ndef half(groups):\n    return np.full(groups.items.shape, np.nan)\n"
    )
    own = (
        (ROOT / "templates" / "next-item-names.jinja").read_text().replace("{{ target.name }}", "the {{ target.name }}")
    )
    (tmp_path / "ownreward.jinja").write_text(own)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = (QUICK.split("stages:")[0] + STAGE + RANK).replace("max_steps: 30", "max_steps: 1")
    (tmp_path / "own.yaml").write_text(text + f"output_dir: {tmp_path / 'run'}\n")
    given = [word.replace("OWN", "ownreward") for word in more]
    assert message.replace("OWN", "ownreward") in fails(capsys, "train", str(tmp_path / "own.yaml"), *given)


def test_what_a_reward_of_ones_own_says_marks_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (
        grpo.made_by({"rewards": ["hit", name]})
        for name in (f"{own_nan.__module__}:own_nan", f"{own_nan.__module__}:own_short")
    )
    assert first == (hit, own_nan)
    assert second == (hit, own_short)
    assert grpo.needs({"rewards": ["similarity", "hit"]}) == ("vectors",)
    assert grpo.needs({"rewards": ["prior", "similarity"]}) == ("vectors", "prior")
    assert grpo.needs({}) == ()


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
  - {call: grpo, rollouts: independent, num_generations: 32, max_steps: 100, per_device_train_batch_size: 1600, learning_rate: 1.0e-2, max_length: 16}
rank: {beams: 10, k: 5}
eval: {k: [1], shuffled_rows: 0, oracle: null}
output_dir: run
"""


def test_a_bandit_whose_best_policy_is_known_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After item n comes item n + 7 (mod 50): a random policy finds out by what its own draws are worth."""
    monkeypatch.chdir(tmp_path)
    bandit_log()
    Path("bandit.yaml").write_text(BANDIT)
    assert main(["train", "bandit.yaml", "--traceback"]) == 0
    row = results(tmp_path / "run")["protocols"]["seen items not hidden"]["tuned model"]
    assert row["recall@1"][0] >= 0.95


def test_prompts_leave_room_for_the_longest_name() -> None:
    """A model has so many positions, and an item that is rolled out may have a longer name than the target."""
    encoder, template, rows = (
        encoder_of("byte-level BPE, Qwen"),
        load_template(ROOT / "templates" / "next-item.jinja"),
        rows_of(60),
    )
    names = [encoder.completion_ids(template.completion(0, {"target": CODED(item)})) for item in range(len(CODES))]
    rollouts = Rollouts(build_trie(names, fixed_length=False), pad=0, scores="catalogue", batch_tokens=1000)
    for most in (None, 80):
        mixture = Mixture(
            [TaskSpec("next_item", lambda part: rows, template)],
            "train",
            encoder,
            seed=0,
            max_length=most,
            loss_on_all=False,
        )
        prompts = Prompts(mixture, rollouts)
        lengths = [len(row["prompt"]) + rollouts.trie.depth for row in prompts.features(range(60), 0)]
        assert 70 < max(lengths) <= 80 if most else max(lengths) > 80
