"""The curves of a training: which are drawn, and of what."""

from __future__ import annotations

import re

from rectune.eval.figures import _curves


def test_what_a_training_logged_is_drawn() -> None:
    sft = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}, {"step": 2, "eval_ndcg@10": 0.1, "eval_loss": 1.8}]
    grpo = [
        {"step": 1, "loss": 0.0, "reward": 0.1, "frac_reward_zero_std": 0.7, "rollouts/hit": 0.3, "kl": 0.0, "entropy": 1.4},
        {"step": 2, "loss": 0.0, "reward": 0.2, "frac_reward_zero_std": 0.6, "rollouts/hit": 0.4, "kl": 0.1, "entropy": None},
    ]  # fmt: skip
    one, both = _curves([sft]), _curves([sft, grpo])
    assert list(one) == ["Loss", "Ranking during training"]
    assert list(both) == [
        "Loss (stage 0)",
        "Ranking during training (stage 0)",
        "Loss (stage 1)",
        "Groups (stage 1)",
        "Policy (stage 1)",
    ]
    words = {name: set(re.findall(r">([a-zKL@' 0-9]+)</text>", figure)) for name, figure in both.items()}
    assert {"reward", "groups with their target", "groups without signal"} <= words["Groups (stage 1)"]
    assert "groups with a hint" not in words["Groups (stage 1)"]
    assert {"KL to the stage's first weights", "entropy"} <= words["Policy (stage 1)"]
    assert "ndcg@10" in words["Ranking during training (stage 0)"]
    assert _curves([[{"step": 1}]]) == {}
