"""Metrics, each by hand; and through `evaluate`."""

from __future__ import annotations

import math
import pkgutil
from pathlib import Path

import numpy as np
import pytest
from rectune.eval import metrics
from rectune.eval.metrics.accuracy import accuracy
from rectune.eval.metrics.auc import auc
from rectune.eval.metrics.calibration_error import calibration_error
from rectune.eval.metrics.coverage import coverage
from rectune.eval.metrics.hits import hits_at, hits_of
from rectune.eval.metrics.log_loss import log_loss
from rectune.eval.metrics.mae import mae
from rectune.eval.metrics.mrr import mrr
from rectune.eval.metrics.ndcg import ndcg
from rectune.eval.metrics.novelty import novelty
from rectune.eval.metrics.recall import recall
from rectune.eval.metrics.rmse import rmse
from rectune.eval.metrics.user_auc import mean_user_auc, user_auc

# row 0: items 7 and 9 relevant, found at places 1 and 3; row 1: found at place 0; row 2: nothing found; row 3: no truth
LISTS = [[1, 7, 2, 9], [5, 1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]]
TRUTH = [[7, 9], [5], [8], []]
HITS, RELEVANT = hits_of(LISTS, TRUTH)


def test_hits_by_hand() -> None:
    assert HITS.tolist() == [[False, True, False, True], [True, False, False, False], [False] * 4, [False] * 4]
    assert RELEVANT.tolist() == [2, 1, 1, 0]
    assert hits_of([[3, 3]], [[3]])[0].tolist() == [[True, False]]
    assert hits_at(np.array([1, 5]), 3).tolist() == [[False, True, False], [False] * 3]
    with pytest.raises(ValueError, match="1 lists, but 2 sets"):
        hits_of([[1]], [[1], [2]])


def test_recall_by_hand() -> None:
    np.testing.assert_array_equal(recall(HITS, RELEVANT, 2), [0.5, 1.0, 0.0, np.nan])
    np.testing.assert_array_equal(recall(HITS, RELEVANT, 4), [1.0, 1.0, 0.0, np.nan])


def test_ndcg_by_hand() -> None:
    best = 1 + 1 / math.log2(3)
    first = (1 / math.log2(3) + 1 / math.log2(5)) / best
    np.testing.assert_allclose(ndcg(HITS, RELEVANT, 4), [first, 1.0, 0.0, np.nan])
    np.testing.assert_allclose(ndcg(HITS, RELEVANT, 1), [0.0, 1.0, 0.0, np.nan])


def test_ndcg_beyond_the_list_is_ndcg_of_the_list() -> None:
    np.testing.assert_allclose(ndcg(HITS, RELEVANT, 9), ndcg(HITS, RELEVANT, 4))


def test_mrr_by_hand() -> None:
    np.testing.assert_array_equal(mrr(HITS, RELEVANT, 4), [0.5, 1.0, 0.0, np.nan])
    np.testing.assert_array_equal(mrr(HITS, RELEVANT, 1), [0.0, 1.0, 0.0, np.nan])


def test_auc_by_hand() -> None:
    # pairs (liked, disliked): .9>.4, .9>.6, .4=.4 (half), .4<.6
    assert auc(np.array([0.9, 0.4, 0.4, 0.6]), np.array([1, 1, 0, 0])) == pytest.approx(2.5 / 4)
    assert math.isnan(auc(np.array([0.1, 0.2]), np.array([1, 1])))


def test_user_auc_by_hand() -> None:
    scores = np.array([0.9, 0.1, 0.2, 0.8, 0.5])
    liked = np.array([1, 0, 1, 0, 1])
    user = np.array([4, 4, 7, 7, 9])
    values, sizes = user_auc(scores, liked, user)
    np.testing.assert_array_equal(values, [1.0, 0.0, np.nan])
    assert sizes.tolist() == [2, 2, 1]
    assert mean_user_auc(scores, liked, user) == 0.5
    assert math.isnan(mean_user_auc(scores[4:], liked[4:], user[4:]))


def test_log_loss_by_hand() -> None:
    np.testing.assert_allclose(
        log_loss(np.array([0.25, 0.25, 1.0]), np.array([1, 0, 1])), [math.log(4), math.log(4 / 3), 0], atol=1e-12
    )
    assert np.isfinite(log_loss(np.array([0.0]), np.array([1]))).all()


def test_calibration_error_by_hand() -> None:
    # bin .2: says .25 and .25, one of two true (gap .25 x 2); bin .9: says .95, true (gap .05)
    assert calibration_error(np.array([0.25, 0.25, 0.95]), np.array([1, 0, 1])) == pytest.approx((0.5 + 0.05) / 3)
    assert calibration_error(np.array([1.0]), np.array([1])) == 0.0
    assert math.isnan(calibration_error(np.array([]), np.array([])))


def test_coverage_by_hand() -> None:
    assert coverage(np.array([[0, 1, 3], [1, 2, -1]]), 8, 2) == 3 / 8


def test_novelty_by_hand() -> None:
    # counts 3, 0, 1 over 3 items: (3 + 1) / 7, (0 + 1) / 7, (1 + 1) / 7
    value = novelty(np.array([[0, 1], [2, -1], [-1, -1]]), np.array([3.0, 0.0, 1.0]), 2)
    np.testing.assert_allclose(value, [(math.log2(7 / 4) + math.log2(7)) / 2, math.log2(7 / 2), np.nan])


def test_rmse_and_mae_by_hand() -> None:
    # misses 1, -2, 0
    predicted, given = np.array([4.0, 1.0, 3.0]), np.array([3.0, 3.0, 3.0])
    assert rmse(predicted, given) == pytest.approx(math.sqrt(5 / 3))
    assert mae(predicted, given) == 1.0
    assert math.isnan(rmse(np.array([]), np.array([])))
    assert math.isnan(mae(np.array([]), np.array([])))


def test_accuracy_by_hand() -> None:
    assert accuracy(np.array([0, 4, 2]), np.array([0, 3, 2])) == pytest.approx(2 / 3)
    assert math.isnan(accuracy(np.array([], dtype=np.int64), np.array([], dtype=np.int64)))


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("recall", {"predictions": LISTS[:3], "references": TRUTH[:3], "k": 2}, {"recall@2": 0.5}),
        ("mrr", {"predictions": LISTS[:3], "references": TRUTH[:3], "k": 4}, {"mrr@4": 0.5}),
        ("ndcg", {"predictions": LISTS[1:3], "references": TRUTH[1:3]}, {"ndcg@10": 0.5}),
        ("auc", {"predictions": [0.9, 0.4, 0.4, 0.6], "references": [1, 1, 0, 0]}, {"auc": 0.625}),
        ("user_auc", {"predictions": [0.9, 0.1], "references": [1, 0], "users": [1, 1]}, {"user_auc": 1.0}),
        ("log_loss", {"predictions": [0.25], "references": [1]}, {"log_loss": math.log(4)}),
        ("calibration_error", {"predictions": [0.25, 0.25], "references": [1, 0]}, {"calibration_error": 0.25}),
        ("rmse", {"predictions": [4.0, 1.0], "references": [3.0, 3.0]}, {"rmse": math.sqrt(2.5)}),
        ("mae", {"predictions": [4.0, 1.0], "references": [3.0, 3.0]}, {"mae": 1.5}),
        ("accuracy", {"predictions": [1, 2], "references": [1, 3]}, {"accuracy": 0.5}),
        ("coverage", {"predictions": [[0, 1], [1, 2]], "n_items": 6, "k": 2}, {"coverage@2": 0.5}),
        ("novelty", {"predictions": [[2]], "popularity": [3, 0, 1], "k": 1}, {"novelty@1": math.log2(3.5)}),
    ],
)
def test_every_metric_is_there_for_evaluate(name: str, inputs: dict, expected: dict, tmp_path: Path) -> None:
    from rectune.eval.loadable import Loadable  # here and below, as it takes seconds to import

    metric = Loadable(name, cache_dir=str(tmp_path))
    assert metric.compute(**inputs) == pytest.approx(expected)


def test_a_metric_loads_by_file_and_name(tmp_path: Path) -> None:
    import evaluate
    from rectune.eval import loadable

    metric = evaluate.load(loadable.__file__, "recall", cache_dir=str(tmp_path))
    metric.add_batch(predictions=LISTS[:2], references=TRUTH[:2])
    metric.add(prediction=LISTS[2], reference=TRUTH[2])
    assert metric.compute(k=2) == {"recall@2": 0.5}


def test_each_file_of_a_formula_has_a_form() -> None:
    from rectune.eval.loadable import FORMS

    assert {module.name for module in pkgutil.iter_modules(metrics.__path__)} == {*FORMS, "hits"}


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("coverage", {"predictions": [[1]]}, r"coverage needs the size of the catalogue: compute\(..., n_items=...\)"),
        ("novelty", {"predictions": [[1]]}, "novelty needs the training count of each item"),
        ("user_auc", {"predictions": [1.0], "references": [1]}, "user_auc needs one user id a row"),
        ("precision", {}, "'precision' is no metric of rectune; there are recall, ndcg"),
    ],
)
def test_what_a_metric_needs_is_said(name: str, inputs: dict, message: str, tmp_path: Path) -> None:
    from rectune.eval.loadable import Loadable

    with pytest.raises(ValueError, match=message):
        Loadable(name, cache_dir=str(tmp_path)).compute(**inputs)
