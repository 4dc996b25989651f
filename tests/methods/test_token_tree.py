"""Examples that begin alike are read once: the same loss and gradients as one by one, for every decoder that the search serves."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from rectune.cli import main
from rectune.methods import token_tree
from rectune.methods.sft import tree_collator
from rectune.methods.target_head import put_target_head
from rectune.methods.token_tree import Tree, TreeCollator, packed, trees_of, visible
from rectune.methods.training import ByGroup
from rectune.model.new_tokens import train_tokenizer
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import load_template
from rectune.tasks.examples import Mixture, TaskSpec
from rectune.tasks.rows import TaskRows
from tests.decoding.models import FALLEN, FAMILIES, LLAMA, build
from tests.runs import killed_at_a_step, same_gradients

DECODERS = [family for family in FAMILIES if family != "t5"]
NONE = -100


def example(prompt: list[int], completion: list[int], group: int = -1) -> dict[str, Any]:
    return {
        "input_ids": prompt + completion,
        "labels": [NONE] * len(prompt) + completion,
        "group": group,
    }


# a user whose targets are the next tokens of the history itself, one with a suffix of its own, one example that is alone, and one that is there twice
EXAMPLES = [
    example([5], [6, 2], 0),
    example([5, 6], [7, 2], 0),
    example([5, 6, 7], [8, 2], 0),
    example([9, 10, 50], [11, 2], 1),
    example([9, 10, 11, 50], [12, 2], 1),
    example([9, 10, 11, 12, 50], [13, 14, 2], 1),
    example([20, 21, 22, 23], [24, 2]),
    example([9, 10, 50], [11, 2], 1),
]


def tree_of(examples: list[tuple[list[int], list[int]]]) -> Tree:
    ((numbers, tree),) = trees_of(examples)
    assert numbers == list(range(len(examples)))
    return tree


def test_a_tree_is_a_walk_that_goes_down_first() -> None:
    tree = tree_of([(e["input_ids"], e["labels"]) for e in EXAMPLES[:3]])
    assert tree.ids == [5, 6, 2, 7, 2, 8, 2]
    assert tree.labels == [NONE, 6, 2, 7, 2, 8, 2]
    assert tree.depth == [0, 1, 2, 2, 3, 3, 4]
    assert tree.parent == [0, 0, 1, 1, 3, 3, 5]
    assert tree.last == [6, 6, 2, 6, 4, 6, 6]


def test_a_token_that_two_examples_learn_counts_twice() -> None:
    twice = tree_of([([5, 6], [NONE, 6])] * 3)
    assert twice.ids == [5, 6, 6, 6]
    assert twice.labels == [NONE, 6, 6, 6]
    assert twice.parent == [0, 0, 0, 0]
    deeper = tree_of([([5, 6, 2], [NONE, 6, 2])] * 2)
    assert sorted(deeper.depth) == [0, 1, 1, 2, 2]
    assert sum(label != NONE for label in deeper.labels) == 4


def test_an_example_that_shares_little_begins_a_tree_of_its_own() -> None:
    """Histories that a window cuts begin elsewhere for each target, after words that they all begin with."""
    words, items = list(range(5)), list(range(100, 400))
    growing = [(words + items[:n], [NONE] * (n + 4) + [items[n - 1]]) for n in range(2, 60)]
    assert [numbers for numbers, _ in trees_of(growing)] == [list(range(58))]
    cut = [(words + items[n : n + 60], [NONE] * 64 + [items[n + 59]]) for n in range(1, 40)]
    found = trees_of([*growing, *cut])
    assert sorted(number for numbers, _ in found for number in numbers) == list(range(97))
    assert found[0][0] == list(range(58))
    assert max(len(tree) for _, tree in found) < 2 * 65 + 58
    short = [
        (words + items[n : n + 2], [NONE] * 6 + [items[n + 1]]) for n in range(40)
    ]  # what they share is worth the longer row
    assert len(trees_of(short)) < 10


def test_rows_are_packed_by_length_and_trees_do_not_see_each_other() -> None:
    trees = [tree_of([(list(range(n)), [NONE] * n)]) for n in (3, 7, 4, 2)]
    rows = packed(trees)
    assert [len(row) for row in rows] == [7, 7, 2]
    assert rows[1].ids == [0, 1, 2, 3, 0, 1, 2]
    seen = visible(torch.tensor([rows[1].last]), torch.float32)[0, 0] == 0
    own = torch.block_diag(torch.ones(4, 4).tril(), torch.ones(3, 3).tril()).bool()
    assert torch.equal(seen, own)


def loss_of(model: Any, batch: dict[str, torch.Tensor], examples: int) -> torch.Tensor:
    out = model(**batch, fused_lm_head=True, use_cache=False)
    assert int(out.label_mask.sum()) == examples
    return -out.log_probs.sum()


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("grouped", [True, False], ids=["trees", "packed"])
def test_loss_and_gradients_are_those_of_the_examples_one_by_one(family: str, grouped: bool) -> None:
    plain = build(family, **FAMILIES[family])
    ours = copy.deepcopy(plain)
    put_target_head(ours)
    total = torch.zeros(())
    for each in EXAMPLES:
        ids = torch.tensor([each["input_ids"]])
        out = plain(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        labels = torch.tensor(each["labels"][1:])
        total = total - out[labels != NONE].gather(1, labels[labels != NONE][:, None]).sum()
    total.backward()
    learned = sum(label != NONE for each in EXAMPLES for label in each["labels"])
    examples = EXAMPLES if grouped else [{**each, "group": -1} for each in EXAMPLES]
    batch = TreeCollator(0, None)(examples)
    real = int(batch["attention_mask"].sum())
    assert real == (7 + 16 + 6 if grouped else sum(len(each["input_ids"]) for each in EXAMPLES))
    loss = loss_of(ours, batch, learned)
    loss.backward()
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-5)
    same_gradients(ours, plain, rtol=1e-4)


def test_an_adapter_with_new_tokens_learns_the_same() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4, target_modules="all-linear", trainable_token_indices=list(range(5, 15)), init_lora_weights=False
    )
    torch.manual_seed(0)
    ours = get_peft_model(build("qwen3", **LLAMA, tie_word_embeddings=True), config)
    plain = copy.deepcopy(ours)
    put_target_head(ours)
    put_target_head(plain)
    learned = sum(label != NONE for each in EXAMPLES for label in each["labels"])
    loss_of(ours, TreeCollator(0, None)(EXAMPLES), learned).backward()
    for each in EXAMPLES:
        batch = {name: torch.tensor([each[name]]) for name in ("input_ids", "labels")}
        (-plain(**batch, fused_lm_head=True).log_probs.sum()).backward()
    same_gradients(ours, plain, rtol=1e-4)


def test_padding_changes_nothing_and_has_no_numbers_of_its_own() -> None:
    model = build("qwen3", **LLAMA)
    put_target_head(model)
    batch = TreeCollator(0, None)(EXAMPLES[6:7])
    wide = {
        "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 3)), "labels": torch.nn.functional.pad(batch["labels"], (0, 3), value=NONE),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 3)),
        "position_ids": torch.nn.functional.pad(batch["position_ids"], (0, 3)),
        "parents": torch.cat([batch["parents"], torch.tensor([[6, 7, 8]])], 1), "last": torch.cat([batch["last"], torch.tensor([[6, 7, 8]])], 1),
    }  # fmt: skip
    torch.testing.assert_close(loss_of(model, wide, 2), loss_of(model, batch, 2))


def mixture(tmp_path: Path, *, seed: int = 0) -> Mixture:
    (tmp_path / "words.jinja").write_text(
        "{% set wordings = 2 %}{% macro prompt(wording, item) %}{{ wording }} {{ item }}{% endmacro %}"
        "{% macro completion(wording, item) %}{{ item }}{% endmacro %}"
    )
    template = load_template(tmp_path / "words.jinja")
    many = TaskRows(
        np.arange(60), lambda i: {"item": "abcdef" * (1 + i % 20)}, "text", np.arange(60), group=np.arange(60) // 5
    )
    alone = TaskRows(np.arange(7), lambda i: {"item": "abcdefgh"[i]}, "text", np.arange(7))
    specs = [TaskSpec("many", lambda part: many, template), TaskSpec("alone", lambda part: alone, template)]
    return Mixture(
        specs, "train", Encoder(train_tokenizer(["a b"], 300), ()), seed=seed, max_length=None, loss_on_all=False
    )


@pytest.mark.parametrize("by_length", [False, True])
def test_examples_of_a_group_follow_each_other_in_an_order_of_each_epoch(tmp_path: Path, by_length: bool) -> None:
    examples = mixture(tmp_path)
    sampler = ByGroup(examples, 8, seed=0, by_length=by_length)
    first = list(sampler)
    torch.manual_seed(3)
    assert list(ByGroup(examples, 8, seed=0, by_length=by_length)) == first  # whatever else was drawn
    assert sorted(first) == list(range(67))
    groups = examples.groups(0)[first].tolist()
    changes = 1 + sum(a != b for a, b in pairwise(groups))
    assert changes == len(set(groups)) == 12 + 7
    examples.epoch = 1
    second = list(sampler)
    assert sorted(second) == sorted(first)
    assert second != first
    assert list(ByGroup(examples, 8, seed=1, by_length=by_length)) != second
    if by_length:  # one stretch: the groups with the largest trees first
        rows = examples.features(second, 1)
        trees: dict[int, list[Any]] = {}
        for p, own in zip(second, rows, strict=True):
            trees.setdefault(int(examples.groups(1)[p]), []).append((own["input_ids"], own["labels"]))
        sizes = [max(len(tree) for _, tree in trees_of(group)) for group in trees.values()]
        assert sizes == sorted(sizes, reverse=True)
        assert len(set(sizes)) > 3


def test_a_group_has_one_wording_in_an_epoch_and_others_in_others(tmp_path: Path) -> None:
    examples = mixture(tmp_path)
    drawn = [[examples.example(p, epoch).wording for p in range(60)] for epoch in range(4)]
    assert all(len(set(own[g * 5 : g * 5 + 5])) == 1 for own in drawn for g in range(12))
    assert len({tuple(own) for own in drawn}) > 1


def recipe(place: Path, task: dict[str, Any], **stage: Any) -> Path:
    """Users of three to eleven events in a catalogue of numbers."""
    lines = ["user,item,time"]
    for user in range(24):
        lines += [f"u{user},i{(user * 3 + step) % 20},{step}" for step in range(3 + user % 9)]
    (place / "log.csv").write_text("\n".join(lines) + "\n")
    settings = {
        "data": {"call": "table", "path": str(place / "log.csv"), "user": "user", "item": "item", "time": "time"},
        "split": {"call": "leave_one_out"},
        "index": {"call": "atomic"},
        "tasks": [{"call": "next_item", "template": "next-item-names.jinja", **task}],
        "model": {
            "from_scratch": {"model_type": "qwen3", **LLAMA, "max_position_embeddings": 128, "tie_word_embeddings": True},
            "text_vocab_size": 300,
        },
        "stages": [{"call": "sft", "max_length": 64, "learning_rate": 0.01, "logging_steps": 1, **stage}],
        "rank": {"template": "next-item-names.jinja", "beams": 5, "k": 5}, "eval": {"call": "ranking", "k": [5], "shuffled_rows": 0}, "output_dir": str(place / "run"),
    }  # fmt: skip
    file = place / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def trained(place: Path, task: dict[str, Any], **stage: Any) -> tuple[list[float], dict[str, Any]]:
    place.mkdir()
    assert main(["train", str(recipe(place, task, **stage)), "--traceback"]) == 0
    report = json.loads((place / "run" / "report.json").read_text())
    (measured,) = (place / "run").glob("stages/train0-*/measured.json")
    return [e["loss"] for e in report["training"][0] if "loss" in e], json.loads(measured.read_text())


@pytest.mark.heavy
def test_a_training_on_trees_is_that_on_targets_with_fewer_tokens(tmp_path: Path) -> None:
    whole = {"per_device_train_batch_size": 200, "num_train_epochs": 4}  # an epoch is a step, so no order matters
    targets, plain = trained(tmp_path / "targets", {}, **whole)
    trees, own = trained(tmp_path / "tree", {"examples": "tree"}, **whole)
    rows, packs = trained(tmp_path / "packed", {}, packing=True, **whole)
    assert len(targets) == 4
    assert trees == pytest.approx(targets, rel=1e-4)
    assert rows == pytest.approx(targets, rel=1e-4)
    assert targets[-1] < targets[0] - 0.1
    assert own["tokens"] < 0.6 * plain["tokens"]
    assert packs["tokens"] == plain["tokens"]
    assert np.prod(packs["largest_batch"]) < 0.8 * np.prod(plain["largest_batch"])


@pytest.mark.heavy
def test_a_killed_training_on_trees_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rectune.methods import sft

    file = recipe(tmp_path, {"examples": "tree"})
    settings = yaml.safe_load(file.read_text())
    stage = settings["stages"][0] | {
        "per_device_train_batch_size": 8, "max_steps": 9, "save_strategy": "steps", "save_steps": 2, "train_sampling_strategy": "group_by_length",
    }  # fmt: skip
    settings["stages"] = [{**stage, "max_steps": 2}, stage]
    file.write_text(yaml.safe_dump(settings))
    killed_at_a_step(file, sft._Trainer, tmp_path, monkeypatch)


def check(tmp_path: Path, capsys: pytest.CaptureFixture[str], task: dict[str, Any], *more: str, **stage: Any) -> str:
    assert main(["train", str(recipe(tmp_path, task, **stage)), *more]) == 1
    return capsys.readouterr().err


def test_what_does_not_go_with_trees_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {"examples": "tree"}
    assert "use `examples: windows`" in check(tmp_path, capsys, tree, completion_only_loss=False)
    small = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    said = check(
        tmp_path, capsys, tree, "--stages", "[{call: seq2seq, max_steps: 1}]", "--model.from_scratch", json.dumps(small)
    )
    assert "`tree` is read by `sft` alone; use `examples: targets`" in said
    assert not (tmp_path / "run").exists()
    assert "`label_smoothing_factor`" in check(tmp_path, capsys, tree, label_smoothing_factor=0.1, max_steps=1)
    assert "targets" in check(tmp_path, capsys, {"examples": "forest"})


def test_a_model_whose_attention_takes_no_mask_of_its_own_is_refused(tmp_path: Path) -> None:
    examples = mixture(tmp_path)
    tokenizer = SimpleNamespace(pad_token_id=0)
    for family in ("bloom", "gpt_neo"):
        task: Any = SimpleNamespace(
            model=build(family, **FALLEN[family][0]), encoder=SimpleNamespace(tokenizer=tokenizer)
        )
        task.model.resize_token_embeddings(400)
        with pytest.raises(
            ValueError, match=r"`examples: tree` and `packing` cannot be used with this model: .*Leave them out"
        ):
            tree_collator(task, examples)
    windowed = build("mistral", **{**LLAMA, "sliding_window": 8})
    windowed.resize_token_embeddings(400)
    task = SimpleNamespace(model=windowed, encoder=SimpleNamespace(tokenizer=tokenizer))
    collator = tree_collator(task, examples)
    assert not windowed.training
    with pytest.raises(ValueError, match="has 9 tokens, and the model's attention looks back 8"):
        collator([example([1] * 7, [2, 3])])
    assert token_tree.IGNORED == NONE
