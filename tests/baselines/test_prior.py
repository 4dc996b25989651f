"""The collaborative prior: what it saves is what it scores with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rectune.eval.sentences import mixed_verdict

from rectune.baselines import prior
from rectune.baselines.ease import ease
from rectune.baselines.markov import transition_scores
from rectune.baselines.sasrec_settings import SasRecSettings
from rectune.baselines.sasrec_training import train_sasrec
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.run.judged import HIDDEN
from rectune.tasks.asked_histories import outside_of


def test_a_prior_is_ease_plus_a_share_of_markov(small_shop: Any, tmp_path: Path) -> None:
    split = leave_one_out(small_shop)
    prior.fit(split, tmp_path, neighbours=split.log.n_items)
    chosen = json.loads((tmp_path / "prior.json").read_text())
    expected = ease(split).score(split.test)
    last = split.log.item_codes[split.test.stop - 1]
    expected += chosen["markov"] * np.asarray(transition_scores(split).tocsr()[last].todense())
    assert chosen["markov"] in prior.MARKOV
    assert np.allclose(prior.load(tmp_path)(split, split.test), expected, atol=1e-5)


def test_with_sasrec_a_prior_is_the_sum_of_three(
    small_shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prior, "MARKOV", (0.3,))
    monkeypatch.setattr(prior, "SASREC", (0.02,))
    split = leave_one_out(small_shop)
    model = train_sasrec(split, SasRecSettings(epochs=1), seed=4)
    prior.fit(split, tmp_path, neighbours=split.log.n_items, sasrec=model)
    last = split.log.item_codes[split.test.stop - 1]
    expected = ease(split).score(split.test)
    expected += 0.3 * np.asarray(transition_scores(split).tocsr()[last].todense())
    expected += 0.02 * model.log_probabilities(split, split.test)
    assert np.allclose(prior.load(tmp_path)(split, split.test), expected, atol=1e-5)


def test_a_sasrec_that_does_not_help_is_left_out(small_shop: Any, tmp_path: Path) -> None:
    assert 0.0 in prior.SASREC
    split = leave_one_out(small_shop)
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    for folder, model in ((alone, None), (beside, train_sasrec(split, SasRecSettings(epochs=1), seed=0))):
        folder.mkdir()
        prior.fit(split, folder, sasrec=model)
    with_it, without = (json.loads((folder / "prior.json").read_text()) for folder in (beside, alone))
    assert with_it["validation_ndcg@10"] >= without["validation_ndcg@10"]


def test_a_prior_scores_histories_from_outside_the_log(small_shop: Any, tmp_path: Path) -> None:
    split = leave_one_out(small_shop)
    prior.fit(split, tmp_path, sasrec=train_sasrec(split, SasRecSettings(epochs=1), seed=0))
    score = prior.load(tmp_path)
    row = split.test.take(np.array([3]))
    outside = outside_of(split).split([split.log.item_codes[row.first[0] : row.stop[0]].tolist()])
    assert np.allclose(score(outside, outside.test), score(split, row))


@pytest.mark.parametrize(("chosen", "warned"), [(40.0, False), (80.0, True)])
def test_a_weight_at_the_end_of_its_grid_is_told(chosen: float, warned: bool) -> None:
    difference = {"best_baseline": "EASE", "metric": "ndcg@10", "differences": {"EASE": [0.01, 0.005, 0.015]}}
    tried = [{"weight": weight, "recall@10": 0.1, "ndcg@10": 0.05} for weight in (0.0, 40.0, 80.0)]
    results = {
        "mixed_against": {HIDDEN: {**difference, "recall_differences": difference["differences"]}},
        "prior_weight": {"weight": chosen, "validation": tried},
    }
    said = mixed_verdict(results)
    assert said[0].startswith("The tuned model with the prior is better than the best baseline (EASE): +.0100")
    assert any("largest weight tried" in line for line in said) == warned
