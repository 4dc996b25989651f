"""The figures of a next-item report, each worked out by hand from the lists of `golden`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rectune.eval.ranking import ranking

from rectune.baselines.ease import ease, ease_with_markov
from rectune.baselines.item_knn import item_knn
from rectune.baselines.scoring import list_rows
from rectune.run.judged import HIDDEN, SHOWN
from rectune.runtime import room
from rectune.runtime.room import Room
from tests.eval import golden

SECOND, THIRD = 0.6309297535714575, 0.5  # 1 / log2(3), 1 / log2(4): what a target in second and in third place gains
GAIN = {"recall@1": [1, 0, 0], "recall@3": [1, 1, 1], "ndcg@1": [1, 0, 0], "ndcg@3": [1, SECOND, THIRD], "mrr@3": [1, 1 / 2, 1 / 3]}  # fmt: skip
FITTED = ["item-KNN", "EASE, recency-weighted", "EASE + Markov"]

# recall@1 (and ndcg@1), recall@3, ndcg@3, mrr@3, coverage@3, novelty@3. The comments: how many targets stand first, second
# and third; which items are among anybody's first three; bits of the three of u0 … u7, a 1, b 2, c 3, d 4, e 5, f 5.
TABLE = {
    HIDDEN: {
        # Whatever the order, the first three of three candidates are all: cde ade cef bdf def def cef ef for popularity, and
        # for others a tie apart; (12 + 10 + 13 + 11 + 14 + 14 + 13) / 3 + 10 / 2 = 34 bits over 8 users
        "popularity": [0.125, 0.75, 0.470232, 0.375, 1, 4.25],  # 1, 2, 3: (1 + 2 x .63093 + 3 x .5) / 8, (1 + 1 + 1) / 8
        "repeat last": [0, 0.625, 0.328866, 0.229167, 1, 4.25],  # 0, 1, 4: (.63093 + 2) / 8, (1/2 + 4/3) / 8
        "first-order Markov": [0.25, 0.75, 0.516366, 0.4375, 1, 4.25],  # 2, 1, 3: (2 + .63093 + 1.5) / 8, (2 + 1/2 + 1) / 8
        "prior alone": [0.25, 0.75, 0.549099, 0.479167, 1, 4.25],  # 2, 3, 1: (2 + 1.89279 + .5) / 8, (2 + 3/2 + 1/3) / 8
        "oracle": [0.875, 0.875, 0.875, 0.875, 1, 4.25],  # 7, 0, 0
        # 1, 3, 0: 2.89279 / 8, 2.5 / 8; no b; (13 + 10 + 13 + 14 + 14 + 13) / 3 + 9 / 2 + 10 / 2 = 35.16667 bits
        "untuned model": [0.125, 0.5, 0.361599, 0.3125, 5 / 6, 4.395833],
        "tuned model": [0.625, 0.875, 0.782732, 0.75, 1, 4.25],  # 5, 2, 0: (5 + 1.26186) / 8, 6 / 8
        # 0, 1, 3: (.63093 + 1.5) / 8, 1.5 / 8; (12 + 10 + 11 + 14 + 13) / 3 + (8 + 9 + 10) / 2 = 33.5 bits
        "tuned model + prior": [0, 0.5, 0.266366, 0.1875, 1, 4.1875],
    },
    SHOWN: {
        "popularity": [0.125, 0.25, 0.203866, 0.1875, 3 / 6, 2],  # 1, 1, 0: 1.63093 / 8, 1.5 / 8; abc for all: 6 / 3 bits
        # 0, 1, 0; bac cba dba eca cab abc dab bad: (6 + 6 + 7 + 9 + 6 + 6 + 7 + 7) / 3 = 18 bits
        "repeat last": [0, 0.125, 0.078866, 0.0625, 5 / 6, 2.25],
        # 1, 2, 0: 2.26186 / 8, 2 / 8; adb abc abc abc abc bac abc adb: (2 x 7 + 6 x 6) / 3 = 16.66667 bits
        "first-order Markov": [0.125, 0.375, 0.282732, 0.25, 4 / 6, 2.083333],
        # 1, 2, 1: 2.76186 / 8, (2 + 1/3) / 8; adb baf acf abc abc abc abc abc: (7 + 8 + 9 + 5 x 6) / 3 = 18 bits
        "prior alone": [0.125, 0.5, 0.345232, 0.291667, 5 / 6, 2.25],
        "oracle": [1, 1, 1, 1, 1, 2.458333],  # dab eab fab bac fab fab abc eab: (7 + 5 x 8 + 2 x 6) / 3 = 19.66667 bits
        # 1, 1, 1: 2.13093 / 8, (1 + 1/2 + 1/3) / 8; fab (8) and seven times abc: 50 / 3 bits
        "untuned model": [0.125, 0.375, 0.266366, 0.229167, 4 / 6, 2.083333],
        # 0, 3, 1: 2.39279 / 8, (3/2 + 1/3) / 8; abd bca abc abc afb abc cab bae: (7 + 8 + 8 + 5 x 6) / 3 = 17.66667 bits
        "tuned model": [0, 0.5, 0.299099, 0.229167, 1, 2.208333],
        "tuned model + prior": [0.125, 0.25, 0.203866, 0.1875, 4 / 6, 2.125],  # 1, 1, 0; bcd (9) and seven times abc: 17 bits
    },
}  # fmt: skip

# The model of the key minus each row: ndcg@3 from the sums over users in TABLE (such as 6.26186 - 3.76186 = 2.5, / 8), then recall@3.
DIFFERENCES = {
    ("tuned_against", HIDDEN): {
        "popularity": [0.3125, 0.125], "repeat last": [0.453866, 0.25], "first-order Markov": [0.266366, 0.125],
        "prior alone": [0.233634, 0.125], "oracle": [-0.092268, 0], "untuned model": [0.421134, 0.375],
        "tuned model + prior": [0.516366, 0.375],
    },
    ("tuned_against", SHOWN): {
        "popularity": [0.095232, 0.25], "repeat last": [0.220232, 0.375], "first-order Markov": [0.016366, 0.125],
        "prior alone": [-0.046134, 0], "oracle": [-0.700901, -0.5], "untuned model": [0.032732, 0.125],
        "tuned model + prior": [0.095232, 0.25],
    },
    ("mixed_against", HIDDEN): {
        "popularity": [-0.203866, -0.25], "repeat last": [-0.0625, -0.125], "first-order Markov": [-0.25, -0.25],
        "prior alone": [-0.282732, -0.25], "oracle": [-0.608634, -0.375], "untuned model": [-0.095232, 0],
        "tuned model": [-0.516366, -0.375],
    },
    ("mixed_against", SHOWN): {
        "popularity": [0, 0], "repeat last": [0.125, 0.125], "first-order Markov": [-0.078866, -0.125],
        "prior alone": [-0.141366, -0.25], "oracle": [-0.796134, -0.75], "untuned model": [-0.0625, -0.125],
        "tuned model": [-0.095232, -0.25],
    },
}  # fmt: skip
NAMED = {"tuned_against": "tuned model", "mixed_against": "tuned model + prior"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("golden")
    return ranking(golden.evidence(folder), k=[3, 1], oracle="tests.eval.golden:oracle").data["results"]


def gains(protocol: str, name: str, metric: str) -> list[float]:
    """What each user's target gains."""
    return [GAIN[metric][place] if place < 3 else 0 for place in golden.PLACES[protocol][name]]


def about(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


def test_nothing_in_the_report_is_left_unchecked(results: Any) -> None:
    assert set(results) == {
        "protocols", "tuned_against", "mixed_against", "prior_weight", "recall_by_history_length",
        "recall_by_target_popularity", "shuffled_history", "oracle_share", "wordings", "baseline_settings", "index_health",
        "short_lists", "proven_exact", "rows", "targets_seen_before", "log", "split", "scores", "beams", "audits",
    }  # fmt: skip
    for protocol in (HIDDEN, SHOWN):
        assert set(results["protocols"][protocol]) == {*TABLE[protocol], *FITTED}


@pytest.mark.parametrize(("protocol", "name"), [(p, n) for p in TABLE for n in TABLE[p]])
def test_a_row_of_the_table_by_hand(results: Any, protocol: str, name: str) -> None:
    entry = results["protocols"][protocol][name]
    first, three, ndcg, mrr, covered, bits = TABLE[protocol][name]
    assert {metric: value[0] for metric, value in entry.items() if metric in GAIN} == {
        "recall@1": about(first), "ndcg@1": about(first), "recall@3": about(three), "ndcg@3": about(ndcg), "mrr@3": about(mrr),
    }  # fmt: skip
    assert {metric: value for metric, value in entry.items() if metric not in GAIN} == {
        "coverage@3": about(covered), "novelty@3": about(bits),
    }  # fmt: skip


@pytest.mark.parametrize(("protocol", "name"), [(p, n) for p in TABLE for n in TABLE[p]])
def test_the_intervals_of_a_row_resample_its_users(results: Any, protocol: str, name: str) -> None:
    for metric in GAIN:
        _, low, high = results["protocols"][protocol][name][metric]
        assert (low, high) == about(golden.resampled(gains(protocol, name, metric))), metric
        assert low <= high


@pytest.mark.parametrize(("key", "protocol"), DIFFERENCES)
def test_differences_and_their_signs_by_hand(results: Any, key: str, protocol: str) -> None:
    against, expected = results[key][protocol], DIFFERENCES[key, protocol]
    assert (against["metric"], against["best_baseline"]) == ("ndcg@3", "prior alone")
    for place, (part, metric) in enumerate((("differences", "ndcg@3"), ("recall_differences", "recall@3"))):
        assert set(against[part]) == {*expected, *FITTED}
        own = np.array(gains(protocol, NAMED[key], metric))
        for name, values in expected.items():
            value, low, high = against[part][name]
            assert value == about(values[place]), name
            paired = own - np.array(gains(protocol, name, metric))
            assert (low, high) == about(golden.resampled(list(paired))), name
            assert low <= value <= high


def test_the_fitted_baselines_stand_in_the_table_as_they_rank(results: Any) -> None:
    split = golden.split_of()
    row = ease(split)
    for fitted in (item_knn(split), row, ease_with_markov(split, row)):
        assert results["baseline_settings"][fitted.name] == fitted.settings
        for protocol, lists in zip((HIDDEN, SHOWN), list_rows(split, split.test, fitted.score, width=6), strict=True):
            entry = results["protocols"][protocol][fitted.name]
            for metric, gain in GAIN.items():
                values = [gain[place] if place < 3 else 0 for place in lists.place]
                assert entry[metric] == about((np.mean(values), *golden.resampled(values)))
            covered = {int(item) for listed in lists.items for item in listed[:3] if item >= 0}
            assert entry["coverage@3"] == about(len(covered) / 6)
            tuned = np.array(gains(protocol, "tuned model", "ndcg@3"))
            paired = tuned - [GAIN["ndcg@3"][place] if place < 3 else 0 for place in lists.place]
            found = results["tuned_against"][protocol]["differences"][fitted.name]
            assert found == about((paired.mean(), *golden.resampled(list(paired))))


def test_recall_by_history_length_by_hand(results: Any) -> None:
    # lengths 2 2 3 4 4 6 6 7: quarters begin at 2, 3, 4 and 6; hits among the first three of u0 u1 | u2 | u3 u4 | u5 u6 u7
    assert results["recall_by_history_length"] == [
        {"from": 2, "to": 2, "rows": 2, "prior alone": 1 / 2, "untuned model": 0, "tuned model": 1},
        {"from": 3, "to": 3, "rows": 1, "prior alone": 1, "untuned model": 1, "tuned model": 1},
        {"from": 4, "to": 5, "rows": 2, "prior alone": 1, "untuned model": 1 / 2, "tuned model": 1},
        {"from": 6, "to": 7, "rows": 3, "prior alone": 2 / 3, "untuned model": 2 / 3, "tuned model": 2 / 3},
    ]


def test_recall_by_the_targets_popularity_by_hand(results: Any) -> None:
    # targets e f f f e have no training event, d b a 1, 7 and 15: three quarters begin at 0 and count once; u1 u2 u4 u5 u7 | u0 u3 u6
    assert results["recall_by_target_popularity"] == [
        {"from": 0, "to": 0, "rows": 5, "prior alone": 4 / 5, "untuned model": 4 / 5, "tuned model": 1},
        {"from": 1, "to": 15, "rows": 3, "prior alone": 2 / 3, "untuned model": 0, "tuned model": 2 / 3},
    ]


def test_what_shuffling_costs_by_hand(results: Any) -> None:
    # u0 u2 u5 u7: in order first, first, second, first; shuffled second, third, third, first
    usual, mixed = [1, 1, SECOND, 1], [SECOND, THIRD, THIRD, 1]
    cost = [a - b for a, b in zip(usual, mixed, strict=True)]  # 1 - .63093, .5, .63093 - .5, 0: 1 in all
    found = results["shuffled_history"]
    assert (found["metric"], found["rows"]) == ("ndcg@3", 4)
    assert found["in_order"] == about((0.907732, *golden.resampled(usual)))
    assert found["shuffled"] == about((0.657732, *golden.resampled(mixed)))
    assert found["cost"] == about((0.25, *golden.resampled(cost)))


def test_the_share_of_the_way_to_the_oracle_by_hand(results: Any) -> None:
    assert results["oracle_share"] == about(0.772048)  # (.782732 - .470232) / (.875 - .470232)


def test_counts_by_hand(results: Any) -> None:
    assert results["rows"] == 8
    assert results["targets_seen_before"] == 1  # u6
    assert (results["beams"], results["scores"]) == (4, "full")
    assert {name: results["log"][name] for name in ("users", "items", "events")} == {
        "users": 8,
        "items": 6,
        "events": 42,
    }
    # lists of fewer than four: all but u0's, all but those of u0 and u1, all
    assert results["short_lists"] == {"untuned model": 7, "tuned model": 6, "tuned model + prior": 8}
    assert results["proven_exact"] == {
        HIDDEN: {"untuned model": 4 / 8, "tuned model": 6 / 8, "tuned model + prior": 1},
        SHOWN: {"untuned model": 3 / 8, "tuned model": 5 / 8, "tuned model + prior": 7 / 8},
    }
    worded = {name: results["wordings"][name] for name in ("recall@10", "ndcg@10")}
    assert worded == {
        "recall@10": {"mean": 0.625, "min": 0.5, "max": 0.75}, "ndcg@10": {"mean": 0.375, "min": 0.25, "max": 0.5},
    }  # fmt: skip
    assert results["prior_weight"]["weight"] == 20


def test_without_a_prior_its_rows_are_absent_and_the_best_baseline_is_the_first_of_equals(tmp_path: Path) -> None:
    found = ranking(golden.evidence(tmp_path, prior=False), k=[3]).data["results"]
    assert set(found["protocols"][HIDDEN]) == {*TABLE[HIDDEN], *FITTED} - {
        "prior alone",
        "tuned model + prior",
        "oracle",
    }
    assert (found["mixed_against"], found["prior_weight"], found["oracle_share"]) == (None, None, None)
    against = found["tuned_against"][HIDDEN]
    assert against["best_baseline"] == "first-order Markov"  # EASE + Markov has its .516366, too
    assert against["differences"]["first-order Markov"][0] == about(0.266366)


def test_an_untuned_model_that_beats_every_baseline_is_none(tmp_path: Path) -> None:
    found = ranking(golden.evidence(tmp_path, untuned=golden.LISTS["tuned", HIDDEN]), k=[3]).data["results"]
    assert found["protocols"][HIDDEN]["untuned model"]["ndcg@3"][0] == about(0.782732)
    assert found["tuned_against"][HIDDEN]["best_baseline"] == "prior alone"
    assert found["tuned_against"][HIDDEN]["differences"]["untuned model"] == (0, 0, 0)


def test_lists_narrower_than_k_hit_nothing_that_they_do_not_hold(tmp_path: Path) -> None:
    """The lists hold four items: the target of u6 is in none, however long the list that is asked about."""
    found = ranking(golden.evidence(tmp_path), k=[5]).data["results"]
    assert found["protocols"][HIDDEN]["tuned model"]["recall@5"][0] == 7 / 8
    assert found["shuffled_history"]["shuffled"][0] == about(0.657732)


def test_the_report_is_the_same_whatever_the_memory_and_says_what_each_baseline_took(
    tmp_path: Path, results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MATRIX", 0.0)  # weights and the users that are drawn lie in files
    rooms: list[Room] = []
    original = room.Room.rows
    monkeypatch.setattr(room.Room, "rows", lambda self, items: rooms.append(self) or original(self, items))
    made = ranking(golden.evidence(tmp_path), k=[3, 1], oracle="tests.eval.golden:oracle", memory=0.5).data
    assert json.dumps(made["results"]) == json.dumps(results)
    assert {given.gigabytes for given in rooms} == {0.5}  # handed on everywhere
    took = {name: entry["seconds"] for name, entry in made["measured"].items() if name.startswith("baseline, ")}
    assert set(took) == {f"baseline, {name}" for name in ("popularity", "repeat last", "first-order Markov", *FITTED)}
    assert min(took.values()) > 0


def test_a_shuffled_list_without_the_target_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(golden.SHUFFLED, 0, "cef")
    found = ranking(golden.evidence(tmp_path), k=[5]).data["results"]
    assert found["shuffled_history"]["shuffled"][0] == 0.5  # (0 + .5 + .5 + 1) / 4


def test_examples_by_hand(tmp_path: Path) -> None:
    shown = ranking(golden.evidence(tmp_path, mixed="ced adf ce dfb de def cef e=f"), k=[3], examples=8).data[
        "examples"
    ]
    assert shown[0] == {
        "user": "u0", "history": ["Apple", "Bread"], "target": "Dates", "recommended": ["Cheese", "Egg", "Dates"],
        "place": 3, "hit": 3,
    }  # fmt: skip
    assert (shown[1]["target"], shown[1]["place"], shown[1]["hit"]) == ("Egg", None, None)
    assert (shown[7]["recommended"], shown[7]["place"], shown[7]["hit"]) == (
        ["Egg", "Fig"],
        2,
        1,
    )  # a tie counts against it
