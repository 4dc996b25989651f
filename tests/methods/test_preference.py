"""Preference tuning: what is rejected, the losses beside plain PyTorch, the reference, and whole runs."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from datasets import Dataset
from torch.nn import functional

from rectune.cli import main
from rectune.decoding.ranking import Ranking
from rectune.log.cleaning import make_log, with_shown
from rectune.log.few_shots import few_shots
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.methods import dpo, s_dpo
from rectune.methods.preference import Preferences, PreferenceTrainer, Rejecting, check_rows
from rectune.tasks.rows import TaskRows
from tests.conftest import QUICK
from tests.offered import files
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


# ---------------------------------------------------------------------------------------------------- what is rejected


def shop() -> Any:
    """Five users; user u takes items u, u + 1, …, u + 5 of eleven."""
    events = pl.DataFrame(
        {"user": [f"u{u}" for u in range(5) for _ in range(6)], "item": [f"i{u + k}" for u in range(5) for k in range(6)],
         "time": [float(k) for _ in range(5) for k in range(6)]}
    )  # fmt: skip
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(11)], "title": [f"Item {n}" for n in range(11)]})
    return leave_one_out(make_log(events, items, source="made up", warn_unordered=False), max_history=2)


class Reads:
    """A template whose completion reads some variables."""

    name = "own.jinja"

    def __init__(self, *names: str) -> None:
        self._names = names

    def arguments(self, macro: str) -> tuple[str, ...]:
        return self._names


def rows_of(split: Any, part: Any) -> TaskRows:
    return TaskRows(
        part.row, lambda i: {}, "item", split.targets(part), history=split.histories(part), shown=split.shown(part)
    )


def sides(split: Any, negatives: str, each: int, lists: Path | None = None, search: Any = None, **keys: Any) -> tuple[Preferences, TaskRows]:  # fmt: skip
    rows = rows_of(split, split.train)
    index = SimpleNamespace(codes=np.zeros((11, 0), dtype=np.int64), titles=[f"Item {n}" for n in range(11)])
    model = torch.nn.Linear(1, 1)
    task: Any = SimpleNamespace(split=split, index=index, model=model, search=search)
    spec = SimpleNamespace(name="next_item", template=Reads("target"))
    mixture: Any = SimpleNamespace(seed=0, tasks=[(spec, rows)], encoder=None, locate=lambda p, epoch: (spec, rows, p))
    made = Rejecting(negatives=negatives, **keys)  # type: ignore[arg-type]
    return Preferences(task, mixture, made, each, lists), rows


@pytest.mark.parametrize("negatives", ["random", "popular"])
def test_neither_the_target_nor_what_the_user_did_is_rejected(negatives: str) -> None:
    split = shop()
    made, rows = sides(split, negatives, 3)
    users = split.train.user
    drawn = set()
    for i in range(len(rows)):
        own = set(
            split.log.item_codes[split.train_events][split.log.user_codes[split.train_events] == users[i]].tolist()
        )
        for epoch in range(20):
            found = [view["target"]["title"] for view in made.rejected(rows, i, epoch, "")]
            codes = {int(title.split()[1]) for title in found}
            assert len(codes) == 3
            assert not codes & own
            assert int(rows.target[i]) not in codes
            drawn |= codes
            assert found == [view["target"]["title"] for view in made.rejected(rows, i, epoch, "")]
    trained = set(split.log.item_codes[split.train_events].tolist())
    assert drawn == (set(range(11)) if negatives == "random" else trained)  # what nobody took has no popularity


def test_popular_items_are_drawn_by_their_counts() -> None:
    split = shop()
    counts = np.bincount(split.log.item_codes[split.train_events], minlength=11)
    for power in (1.0, 0.0):
        made, rows = sides(split, "popular", 1, negatives_power=power)
        seen = np.zeros(11)
        for epoch in range(3000):
            (view,) = made.rejected(rows, 0, epoch, "")
            seen[int(view["target"]["title"].split()[1])] += 1
        free = np.setdiff1d(np.flatnonzero(counts), made.taken(rows, 0))
        weights = counts[free] ** power
        np.testing.assert_allclose(seen[free] / 3000, weights / weights.sum(), atol=0.04)


def test_ranked_items_are_those_of_the_models_lists(tmp_path: Path) -> None:
    split, asked = shop(), []

    def search(model: Any, rows: TaskRows, shelf: Any, *, shards: Path) -> Ranking:
        assert not model.training
        asked.append((len(rows), shards))
        free = [[n for n in (10, 9, 8, 7, 6, 0) if n not in hidden][:3] for hidden in shelf.hidden]
        items = np.array([[*some, *[-1] * (3 - len(some))] for some in free], dtype=np.int32)
        return Ranking(
            rows.row.astype(np.int64), items, np.zeros(items.shape, dtype=np.float32), np.zeros(len(rows), dtype=bool)
        )

    made, rows = sides(split, "ranked", 2, tmp_path / "lists", search)
    made.list_now()
    few, same = sides(split, "ranked", 2, tmp_path / "lists", search)
    few.list_now(np.array([3, 1]))
    for i in range(len(rows)):
        found = [int(view["target"]["title"].split()[1]) for view in made.rejected(rows, i, 0, "")]
        assert set(found) <= {10, 9, 8, 7, 6, 0}
        assert not set(found) & set(made.taken(rows, i).tolist())
        if i in (1, 3):
            assert found == [int(view["target"]["title"].split()[1]) for view in few.rejected(same, i, 0, "")]
    place = tmp_path / "lists" / "0"
    assert asked == [(len(rows), place), (2, place)]
    short, _ = sides(split, "ranked", 4, tmp_path / "short", search)
    with pytest.raises(ValueError, match=r"task `next_item`, row 1: 4 are to be rejected, and 3 items of its list"):
        short.list_now()


def test_candidates_are_rejected_where_rows_offer_them(tmp_path: Path) -> None:
    from rectune.data_builders.sdpo import sdpo

    from rectune.indexing.titles import titles
    from rectune.log.splits.given import given
    from rectune.tasks.choose_item import choose_item

    split = given(sdpo(path=files(tmp_path)))
    index = titles(split)
    rows = choose_item(split, index, "train")
    assert rows.candidates is not None
    spec = SimpleNamespace(name="choose_item", template=Reads("target"))
    mixture: Any = SimpleNamespace(seed=0, tasks=[(spec, rows)])
    task: Any = SimpleNamespace(split=split, index=index)
    drawn = Preferences(task, mixture, Rejecting(negatives="candidates"), 3, None)
    for i, offered in enumerate(rows.candidates.lists()):
        target = int(rows.target[i])
        found = [
            {index.titles.index(view["target"]["name"]) for view in drawn.rejected(rows, i, epoch, "")}
            for epoch in range(6)
        ]
        assert all(len(some) == 3 and some <= set(offered) - {target} for some in found)
        assert len(set(map(frozenset, found))) > 1  # drawn anew in each epoch
    # Where the user took some of them at another time, these come last, not never: the row says that they were not chosen.
    drawn.taken = lambda rows, i: np.array([int(rows.target[i]), *rows.candidates.lists()[i][:3]])  # type: ignore[method-assign,union-attr]
    for i, offered in enumerate(rows.candidates.lists()):
        left = set(offered) - set(offered[:3]) - {int(rows.target[i])}
        some = {index.titles.index(view["target"]["name"]) for view in drawn.rejected(rows, i, 0, "")}
        assert len(some) == 3
        assert left <= some <= set(offered) - {int(rows.target[i])}


def test_what_was_shown_and_not_taken_is_rejected_first() -> None:
    split = shop()
    # u0 takes 0 … 5 at times 0 … 5, the last two are held out. Shown to him: long before 9 and 10, with his third event 7, 8 and what he took; later 6.
    rows_of_u0 = [(9, -1.0), (10, -1.0), (2, 2.0), (7, 2.0), (8, 2.0), (6, 2.5), (3, 3.0), (6, 3.0)]
    shown = pl.DataFrame(
        {"user": ["u0"] * 8, "item": [f"i{n}" for n, _ in rows_of_u0], "time": [t for _, t in rows_of_u0]}
    )
    log = with_shown(split.log, [shown], source="made up")
    split = leave_one_out(log, max_history=2)
    position = {
        (int(u), int(t)): i for i, (u, t) in enumerate(zip(split.train.user, split.targets(split.train), strict=True))
    }

    def drawn(each: int, i: int) -> list[frozenset[int]]:
        made, rows = sides(split, "shown", each)
        with pytest.warns(
            UserWarning,
            match=rf"task `next_item`: in { {1: 12, 3: 13, 4: 13, 5: 14}[each] } of 15 rows fewer than {each} ",
        ):
            made.tell_shown()
        codes = [[int(v["target"]["title"].split()[1]) for v in made.rejected(rows, i, e, "")] for e in range(30)]
        assert all(len(set(some)) == each for some in codes)
        return [frozenset(some) for some in codes]

    few = few_shots(split, 2, seed=0)  # of whose training events most are left out
    rare, rows = sides(few, "shown", 4)
    for i in range(len(rows)):
        then = few.earlier(few.train, i).tolist()
        assert not {int(v["target"]["title"].split()[1]) for v in rare.rejected(rows, i, 0, "")} & {
            *then,
            int(rows.target[i]),
        }
    nobody = replace(split, validation=split.validation.take(split.validation.user > 0))  # u0 alone was shown anything
    sides(replace(nobody, train=nobody.validation), "shown", 1)  # no reason to stop: chance stands in
    rows = rows_of(nobody, nobody.validation)
    with pytest.raises(
        ValueError, match=r"names no item that was shown to the user of a training row before its target"
    ):
        check_rows(Rejecting(negatives="shown"), 1, [(SimpleNamespace(name="x", template=Reads("target")), rows)])

    third, fourth, other = position[0, 2], position[0, 3], position[1, 3]
    assert set(drawn(1, third)) == {frozenset({7}), frozenset({8})}
    assert set(drawn(3, third)) == {frozenset({7, 8, 9}), frozenset({7, 8, 10})}
    assert set(drawn(4, third)) == {frozenset({7, 8, 9, 10})}  # 6 was shown later
    assert set(drawn(1, fourth)) == {frozenset({6})}
    assert all(
        {7, 8, 9, 10} <= some and some <= {4, 5, 6, 7, 8, 9, 10} for some in drawn(5, third)
    )  # by chance where they run out
    assert len(set(drawn(1, other))) > 2  # u1 was shown nothing


def test_a_log_that_does_not_tell_what_was_shown_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"task `next_item` does not tell what its users were shown until then: `next_item` and `choose_item` do",
    ):
        sides(shop(), "shown", 1)


def test_too_few_items_and_texts_are_refused() -> None:
    split = shop()
    made, rows = sides(split, "random", 9)
    with pytest.raises(ValueError, match=r"task x: 9 are to be rejected, and 7 items are left"):
        made.rejected(rows, 0, 0, "task x")
    text = TaskRows(np.arange(2), lambda i: {}, "text", np.zeros(2, dtype=np.int64))
    task: Any = SimpleNamespace(split=split, index=made._task.index)
    two = TaskRows(
        np.arange(2), lambda i: {}, "answer", np.zeros(2, dtype=np.int64), answers=({"answer": "Yes"}, {"answer": "No"})
    )
    for refused, reads, each, message in (
        (text, "target", 1, "task `own` writes texts, of which none is known to be worse"),
        (rows, "item", 1, "the completion of `own.jinja` does not read `target`, so it cannot name another item"),
        (two, "target", 2, "task `own`: 2 are to be rejected, and 1 answers are left"),
    ):
        mixture: Any = SimpleNamespace(seed=0, tasks=[(SimpleNamespace(name="own", template=Reads(reads)), refused)])
        with pytest.raises(ValueError, match=message):
            Preferences(task, mixture, Rejecting(), each, None)


def test_the_other_answers_are_rejected() -> None:
    made, _ = sides(shop(), "random", 2)
    answers = ({"target": "A"}, {"target": "B"}, {"target": "C"})
    rows = TaskRows(np.arange(3), lambda i: {}, "answer", np.array([0, 1, 2]), answers=answers)
    assert {view["target"] for view in made.rejected(rows, 1, 0, "")} == {"A", "C"}


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
    stage = killed_at_a_step(recipe, PreferenceTrainer, tmp_path, monkeypatch)
    history = json.loads((stage / "log_history.json").read_text())
    assert {"rewards/margins", "rewards/accuracies", "loss"} <= history[0].keys()
    first = next(entry["loss"] for entry in history if "loss" in entry)
    assert first == pytest.approx(np.log(2 if method == "dpo" else 4), rel=1e-3)  # policy and reference are one
    assert any("eval_ndcg@10" in entry for entry in history)
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
  - {call: s_dpo, negatives_each: 15, beta: 1.0, max_steps: 250, per_device_train_batch_size: 50, learning_rate: 1.0e-2, max_length: 16}
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
