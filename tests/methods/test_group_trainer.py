"""Groups: rewards and log-probabilities by hand, the loss beside plain PyTorch, and what draws cost."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from rectune.decoding.rollouts import RolledOut, Rollouts
from rectune.decoding.trie import build_trie
from rectune.methods import grpo
from rectune.methods.group_head import Groups, inputs_of, put_group_head
from rectune.methods.group_trainer import GroupTrainer, WholeGroups, weighted
from rectune.methods.rewards import Rewards, RolledGroups, hit, prior, rank, similarity
from rectune.vectors.item_vectors import ItemVectors
from tests.methods.test_preference import move, small_model
from tests.methods.test_rejected import shop
from tests.runs import same_gradients

NAMES = [[50, 51], [50, 52], [51, 50, 53], [51, 50, 54], [52], [53, 50], [53, 51], [53, 55]]
ROWS = [
    {"prompt": [5, 6, 7], "target": 2, "row": 0, "position": 0},
    {"prompt": [8], "target": 7, "row": 1, "position": 1},
]
EACH = 4


def rolled(split: Any = None, **more: Any) -> RolledGroups:
    given = {
        "items": np.array([[3, 1, 2], [4, 5, 6]], dtype=np.int32), "log_probs": np.array([[-2.0, -1.0, -3.0], [-1.0, -2.0, -3.0]], dtype=np.float32),
        "target": np.array([2, 9]), "row": np.array([1, 3]), "split": split, **more,
    }  # fmt: skip
    return RolledGroups(**given)


# ---------------------------------------------------------------------------------------------------------------- rewards


def test_hit_and_rank_by_hand() -> None:
    np.testing.assert_array_equal(hit(rolled()), [[0, 0, 1], [0, 0, 0]])
    discount = 1 / np.log2(np.array([2.0, 3.0, 4.0]))  # item 1 is ranked first, then 3, then the target
    expected = -discount / discount.sum()
    np.testing.assert_allclose(rank(rolled()), [[expected[1], expected[0], 0], [0, 0, 0]])


def test_similarity_is_the_cosine_to_the_target() -> None:
    block = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    block[5] = 0  # an item without a vector is like nothing
    vectors = ItemVectors(tuple(f"i{n}" for n in range(11)), (block,), (False,))
    found = similarity(rolled(), vectors)
    joined = vectors.joined()
    for g, target in enumerate((2, 9)):
        for i, item in enumerate(rolled().items[g]):
            size = np.linalg.norm(joined[item]) * np.linalg.norm(joined[target])
            assert found[g, i] == pytest.approx(joined[item] @ joined[target] / size if size else 0.0, abs=1e-6)


def test_the_prior_scores_the_row_of_the_group() -> None:
    split = shop()

    def scores(given: Any, rows: Any) -> Any:
        return np.arange(11.0) * (1 + split.targets(rows)[:, None])

    rows = np.array([split.train.row[2], split.train.row[0]])
    found = prior(rolled(split, row=rows), scores)
    np.testing.assert_allclose(found, (np.array([[3, 1, 2], [4, 5, 6]]) - 5.0) / 5)  # the mean is 0, the best 1
    with pytest.raises(ValueError, match="a task has rows of its own"):
        prior(rolled(split, row=np.array([1, 10**6])), scores)


def own_nan(groups: RolledGroups) -> Any:
    found = np.zeros(groups.items.shape)
    found[1, 0] = np.nan
    return found


def own_short(groups: RolledGroups) -> Any:
    return np.zeros(len(groups.items))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_nan", r"the reward `.*own_nan` gave nan for item i4 in row 3; it must be a number"),
        ("own_short", r"the reward `.*own_short` gave numbers of shape \(2,\) for items of shape \(2, 3\)"),
    ],
)
def test_a_reward_that_gives_no_number_for_each_item_is_told(name: str, message: str) -> None:
    (reward,) = Rewards([f"{__name__}:{name}"], split=shop(), held={}, each=3).functions
    with pytest.raises(ValueError, match=message):
        reward(item=[3, 1, 2, 4, 5, 6], log_prob=[0.0] * 6, target=[2] * 3 + [9] * 3, row=[1] * 3 + [3] * 3, prompts=[])


# ---------------------------------------------------------------------------------------------------- log-probabilities


def plain(model: Any, prompt: list[int], name: list[int], catalogue: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each token of a name, and entropy there, by forward passes of their own."""
    logps, entropies = [], []
    for place, token in enumerate(name):
        logits = model(input_ids=torch.tensor([prompt + name[:place]])).logits[0, -1] / 0.7
        if catalogue:
            follow = sorted({other[place] for other in NAMES if len(other) > place and other[:place] == name[:place]})
            logits, token = logits[follow], follow.index(token)
        every = logits.log_softmax(-1)
        logps.append(every[token])
        entropies.append(-(every.exp() * every).sum())
    return torch.stack(logps), torch.stack(entropies)


def groups_of(prompts: list[list[int]], items: list[list[int]]) -> Groups:
    longest, deepest = max(map(len, prompts)), max(map(len, NAMES))
    prompt, mask = (torch.zeros((len(prompts), longest), dtype=torch.long) for _ in range(2))
    names, named = (torch.zeros((len(items), len(items[0]), deepest), dtype=torch.long) for _ in range(2))
    for row, (ids, group) in enumerate(zip(prompts, items, strict=True)):
        prompt[row, longest - len(ids) :], mask[row, longest - len(ids) :] = torch.tensor(ids), 1
        for place, item in enumerate(group):
            names[row, place, : len(NAMES[item])], named[row, place, : len(NAMES[item])] = torch.tensor(NAMES[item]), 1
    return Groups(prompt, mask, names, named)


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("catalogue", [True, False])
def test_a_prompt_that_is_read_once_gives_what_single_passes_give(kind: str, catalogue: bool) -> None:
    model = small_model(kind).eval()
    beside = copy.deepcopy(model)
    put_group_head(model)
    table = Rollouts(build_trie(NAMES, fixed_length=False), pad=0, scores="full", batch_tokens=10).table(
        torch.device("cpu")
    )
    items = [[3, 4, 2, 2], [7, 0, 5, 4]]
    prompts = [row["prompt"] for row in ROWS]
    given = groups_of(prompts, items)  # type: ignore[arg-type]
    out = model(**inputs_of(given, table if catalogue else None, temperature=0.7, dtype=torch.float32))
    weight = torch.randn(given.names.shape, generator=torch.Generator().manual_seed(0))
    (out.log_probs * weight * given.named).sum().backward()
    total: Any = 0.0
    for row, prompt in enumerate(prompts):
        for place, item in enumerate(items[row]):
            logp, entropy = plain(beside, prompt, NAMES[item], catalogue)  # type: ignore[arg-type]
            torch.testing.assert_close(out.log_probs[row, place, : len(logp)], logp, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(out.entropy[row, place, : len(logp)], entropy, rtol=1e-5, atol=1e-5)
            total = total + (logp * weight[row, place, : len(logp)]).sum()
    total.backward()
    same_gradients(model, beside, rtol=1e-4)
    assert model(input_ids=torch.tensor([[5, 6]])).logits.shape[-1] == 60  # other calls stay as they were


# ------------------------------------------------------------------------------------------------------- the trainer


def trainer_of(model: Any, folder: Path, rewards: list[str] | None = None, **keys: Any) -> GroupTrainer:
    from rectune.model.new_tokens import train_tokenizer

    given = {
        "num_generations": EACH,
        "per_device_train_batch_size": 2 * EACH,
        "per_device_eval_batch_size": EACH,
        **keys,
    }
    config = grpo.Config(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", remove_unused_columns=False, rewards=rewards or ["hit", "rank"], **given
    )  # fmt: skip
    mixture: Any = SimpleNamespace(epoch=0, __len__=lambda self: 2)
    rollouts = Rollouts(build_trie(NAMES, fixed_length=False), pad=0, scores="catalogue", batch_tokens=10_000)
    made = GroupTrainer(
        model, rollouts=rollouts, rewards=Rewards(config.rewards, split=shop(), held={}, each=config.num_generations), mixture=mixture, args=config, processing_class=train_tokenizer(["a b c"], 300),
        train_dataset=Dataset.from_list(ROWS),
    )  # fmt: skip
    made.meter = SimpleNamespace(saw=lambda batch: None)  # type: ignore[assignment]
    made.current_gradient_accumulation_steps = 1
    return made


def asked() -> list[dict[str, Any]]:
    return [dict(row) for row in ROWS for _ in range(EACH)]


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("log_probs", ["catalogue", "vocabulary"])
def test_the_loss_and_its_gradients_are_those_of_plain_pytorch(kind: str, log_probs: str, tmp_path: Path) -> None:
    policy = small_model(kind)
    before, beside = copy.deepcopy(policy).eval(), copy.deepcopy(policy).eval()
    trainer = trainer_of(
        policy, tmp_path, beta=0.3, log_probs=log_probs, temperature=1.0, loss_type="grpo", use_bias_correction_kl=False
    )
    for model in (policy, beside):
        move(model)  # the policy has gone on from its reference
    policy.eval()
    batch = trainer._generate_and_score_completions(asked())
    items = [
        [
            NAMES.index(ids[: int(n)])
            for ids, n in zip(batch["completion_ids"].tolist(), batch["completion_mask"].sum(1), strict=True)
        ]
    ]
    items = np.array(items).reshape(2, EACH).tolist()
    loss = trainer._compute_loss(policy, batch)
    loss.backward()

    def score(model: Any, prompt: Any, item: int) -> torch.Tensor:
        logps = []
        for place, token in enumerate(NAMES[item]):
            logits = model(input_ids=torch.tensor([prompt + NAMES[item][:place]])).logits[0, -1]
            follow = sorted({n[place] for n in NAMES if len(n) > place and n[:place] == NAMES[item][:place]})
            catalogue = log_probs == "catalogue"
            every = (logits[follow] if catalogue else logits).log_softmax(-1)
            logps.append(every[follow.index(token) if catalogue else token])
        return torch.stack(logps)

    losses = []
    for row, group in zip(ROWS, items, strict=True):
        own = [score(beside, row["prompt"], item) for item in group]
        discount = 1 / np.log2(np.arange(EACH) + 2.0)  # as the search lists them, best first
        there = row["target"] in group
        reward = np.array(
            [
                1.0 if item == row["target"] else -discount[i] / discount.sum() if there else 0.0
                for i, item in enumerate(group)
            ]
        )
        advantage = (reward - reward.mean()) / (reward.std(ddof=1) + 1e-4)
        for i, (item, logp) in enumerate(zip(group, own, strict=True)):
            with torch.no_grad():
                reference = score(before, row["prompt"], item)
            kl = torch.exp(reference - logp) - (reference - logp) - 1
            losses.append((-torch.exp(logp - logp.detach()) * advantage[i] + 0.3 * kl).mean())
    expected = torch.stack(losses).mean()
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    same_gradients(policy, beside, rtol=1e-3)
    if kind == "lora":
        assert policy.peft_config.keys() == {"default"}


def test_a_group_without_variance_changes_nothing(tmp_path: Path) -> None:
    policy = small_model("lora").train()
    trainer = trainer_of(policy, tmp_path, rewards=["hit"])
    batch = trainer._generate_and_score_completions([{**row, "target": 10} for row in asked()])  # no item of the trie
    assert batch["advantages"].abs().sum() == 0
    loss = trainer._compute_loss(policy, batch)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in policy.parameters())
    assert trainer._metrics["train"]["frac_reward_zero_std"] == [1.0]


@pytest.mark.parametrize("rollouts", ["beams", "independent", "without_replacement"])
def test_log_probabilities_in_the_loss_are_the_searchs_scores(rollouts: str, tmp_path: Path) -> None:
    policy = small_model("lora").eval()
    trainer = trainer_of(policy, tmp_path, rollouts=rollouts, **({} if rollouts == "beams" else {"temperature": 0.6}))
    batch = trainer._generate_and_score_completions(asked())
    ids, mask = (torch.cat([batch[f"prompt_{x}"], batch[f"completion_{x}"]], 1) for x in ("ids", "mask"))
    logps, _, _ = trainer._get_per_token_logps_and_entropies(policy, ids, mask, batch["completion_ids"].shape[1])
    np.testing.assert_allclose(
        (logps * batch["completion_mask"]).sum(1).detach(), trainer._drawn.log_probs.ravel(), atol=1e-5
    )


def test_hints_show_codes_of_the_target_until_it_is_there(tmp_path: Path) -> None:
    policy = small_model("lora").eval()
    trainer = trainer_of(
        policy, tmp_path, num_generations=2, per_device_train_batch_size=4, per_device_eval_batch_size=2, hints=2
    )
    best = trainer._rollouts.draw(
        policy, [row["prompt"] for row in ROWS], how="beams", each=8, seeds=[0] * len(ROWS)
    ).items  # type: ignore[misc]
    # The last item of the first row's list that has another one below its first code, and one that is found without a hint.
    lacking = next(
        int(item)
        for item in best[0][::-1]
        if len(trainer._rollouts.beginning(int(item), 1)) >= 2 and item not in best[0][:2]
    )
    rows = [{**ROWS[0], "target": lacking}, {**ROWS[1], "target": int(best[1][0])}]
    batch = trainer._generate_and_score_completions([dict(row) for row in rows for _ in range(2)])
    shown = 1 - batch["tool_mask"]
    assert shown[:2, 0].tolist() == [1, 1]  # its code stands in the names, and no loss on it
    assert shown[2:].sum() == 0
    below = set(trainer._rollouts.beginning(lacking, 1).tolist())
    assert set(trainer._drawn.items[0].tolist()) <= below
    assert trainer._drawn.items[1].tolist() == best[1][:2].tolist()
    assert trainer._metrics["eval"]["rollouts/hinted"] == [0.5]


# ---------------------------------------------------------------------------------------------- what draws are worth


def policy_gradients(
    draw: str, importance: bool, groups: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The gradient of the mean reward of a softmax over ten items, and its estimate from groups of four: mean and deviation of it."""
    rng = np.random.default_rng(0)
    logits, reward = rng.normal(size=10), np.arange(10.0) / 9
    p = np.exp(logits) / np.exp(logits).sum()
    exact = p * (reward - p @ reward)
    keys = np.log(p) + rng.gumbel(size=(groups, 10))
    order = np.argsort(-keys, axis=1)
    if draw == "without_replacement":
        items = order[:, :EACH]
        kappa = np.take_along_axis(keys, order[:, EACH : EACH + 1], 1)
        within = np.log(-np.expm1(-np.exp(np.log(p)[items] - kappa)))
    elif draw == "independent":
        items, within = rng.choice(10, p=p, size=(groups, EACH)), np.zeros((groups, EACH))
    else:
        items, within = np.tile(np.argsort(-p)[:EACH], (groups, 1)), np.zeros((groups, EACH))
    own = torch.from_numpy(reward[items] - reward[items].mean(1, keepdims=True)).flatten()
    if importance:
        own = weighted(own, RolledOut(items.astype(np.int32), np.log(p)[items], within))
    advantage = own.view(groups, EACH).numpy()
    per_group = np.zeros((groups, 10))
    for i in range(EACH):
        per_group[np.arange(groups), items[:, i]] += advantage[:, i] / EACH
        per_group -= advantage[:, i : i + 1] / EACH * p
    return exact, per_group.mean(0), per_group.std(0) / groups**0.5


def test_weights_mend_most_of_what_drawing_without_replacement_gets_wrong() -> None:
    """The bias of each kind of group, as the cosine and the size of its mean gradient beside the exact one."""
    found = {}
    for draw, importance in (
        ("independent", False),
        ("without_replacement", True),
        ("without_replacement", False),
        ("beams", False),
    ):
        exact, mean, error = policy_gradients(draw, importance, 20_000)
        cosine = float(mean @ exact / np.linalg.norm(mean) / np.linalg.norm(exact))
        found[draw, importance] = (cosine, float(np.linalg.norm(mean) / np.linalg.norm(exact)))
        if draw == "independent":  # unbiased but for the baseline, which takes 1 / group of each item's own reward
            np.testing.assert_allclose(mean, exact * (1 - 1 / EACH), atol=5 * error.max())
    assert found["independent", False][0] > 0.999
    assert found["without_replacement", True][0] > 0.99
    assert found["without_replacement", True][0] > found["without_replacement", False][0]
    assert found["beams", False][0] < found["without_replacement", False][0]


def test_whole_groups_are_drawn_in_an_order_of_the_seed_and_the_epoch() -> None:
    class Ten:
        epoch = 0

        def __len__(self) -> int:
            return 10

    mixture: Any = Ten()
    sampler = WholeGroups(mixture, each=2, prompts=3, repeats=2, seed=5)
    first = list(sampler)
    assert len(first) == len(sampler) == 9 * 2 * 2
    for at in range(0, len(first), 12):  # three prompts, each twice, and once more for the second use
        assert first[at : at + 6] == first[at + 6 : at + 12]
        assert first[at : at + 6 : 2] == first[at + 1 : at + 6 : 2]
    assert len(set(first)) == 9
    assert list(sampler) == first
    mixture.epoch = 1
    assert list(sampler) != first
    with pytest.raises(ValueError, match="a rollout takes 11 prompts, and there are 10 examples"):
        WholeGroups(mixture, each=2, prompts=11, repeats=1, seed=5)
