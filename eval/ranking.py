"""The judge of next-item runs: every row of the table on the same split, twice, with intervals."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rectune.eval.figures import ranking_figures
from rectune.eval.intervals import Bootstrap
from rectune.eval.metrics.coverage import coverage
from rectune.eval.metrics.hits import hits_at
from rectune.eval.metrics.mrr import mrr
from rectune.eval.metrics.ndcg import ndcg
from rectune.eval.metrics.novelty import novelty
from rectune.eval.metrics.recall import recall
from rectune.eval.page import page, ranking_text
from rectune.eval.sentences import ranking_words
from rectune.eval.several import over_wordings, summarise

from rectune.baselines.ease import ease, ease_with_markov
from rectune.baselines.item_knn import item_knn
from rectune.baselines.markov import markov
from rectune.baselines.popularity import popularity
from rectune.baselines.repeat_last import repeat_last
from rectune.baselines.sasrec import sasrec
from rectune.baselines.scoring import (
    MOST_ITEMS,
    NOWHERE,
    Baseline,
    Placed,
    Scorer,
    list_rows,
    place_among,
    train_counts,
)
from rectune.decoding.ranking import Ranking, target_ranks
from rectune.log.split import Split, evenly
from rectune.recipe.calls import named
from rectune.recipe.homes import HOMES
from rectune.run.judged import HIDDEN, SAMPLED, SHOWN, Evidence, Report, earlier_run, judge
from rectune.run.sasrec_box import NAME as SASREC
from rectune.runtime.room import Room

UNTUNED, TUNED, ORACLE = "untuned model", "tuned model", "oracle"
PRIOR, MIXED = "prior alone", "tuned model + prior"
MODELS = {"untuned": UNTUNED, "tuned": TUNED, "mixed": MIXED}
WIDTH = 20


@judge("item", summarise=summarise)
def ranking(
    evidence: Evidence,
    *,
    k: list[int] = [1, 5, 10],  # noqa: B006  read only
    ease_items: int = MOST_ITEMS,
    memory: float = 2.0,
    oracle: str | None = None,
    shuffled_rows: int = 1000,
    wording_rows: int = 500,
    candidates: int = 0,
    examples: int = 6,
) -> Report:
    """Judge a next-item run.

    `k`: list lengths. `ease_items`: above so many items EASE and item-KNN run on the most popular ones.
    `memory`: GB (2^30 bytes) that baselines, prior and figures may take
    above what is there; no figure depends on it. `oracle`: a builder
    that knows its own probabilities (its file has a function `oracle`), or 'module:function'. `shuffled_rows`: how many test rows are ranked
    once more with shuffled histories (0: none); `wording_rows`: how many are ranked once under each wording. `candidates`: above 0 each row also ranks its
    target among so many items drawn at random, as a protocol of its own (0: none). `examples`: users shown in words.
    """
    if not k or min(k) < 1:
        raise ValueError(f"`eval.k` must hold list lengths from 1 on, got {k}.")
    split = evidence.split
    width = max(WIDTH, *k)
    room = Room(memory)
    lists, settings, took = _baseline_lists(evidence, ease_items, width, room)
    if oracle is not None:
        lists[ORACLE] = _oracle_lists(evidence, oracle, width, room)
    if evidence.prior is not None:
        lists[PRIOR] = _every(evidence, evidence.prior, width, room, PRIOR)
    models = {who: name for who, name in MODELS.items() if (who, HIDDEN) in evidence.rankings}
    targets = split.targets(split.test)
    for name, others in evidence.others.items():
        if name in (*lists, *models.values()):
            raise ValueError(f"`--lists`: the table has a row `{name}` already. Rename the file.")
        lists[name] = {p: model_lists(others[p], targets) for p in (HIDDEN, SHOWN)}
    for who, name in models.items():
        lists[name] = {p: model_lists(evidence.rankings[who, p], targets) for p in (HIDDEN, SHOWN)}
        if who in evidence.sampled:
            lists[name][SAMPLED] = model_lists(evidence.sampled[who], targets)
    judge = _Judge(evidence, sorted(k), lists, room)
    results = {
        "protocols": {protocol: judge.table(protocol) for protocol in (HIDDEN, SHOWN)},
        "tuned_against": {protocol: judge.differences(protocol, TUNED) for protocol in (HIDDEN, SHOWN)},
        "mixed_against": {protocol: judge.differences(protocol, MIXED) for protocol in (HIDDEN, SHOWN)}
        if MIXED in lists
        else None,
        "prior_weight": evidence.prior_weight,
        "recall_by_history_length": judge.by_history_length(),
        "recall_by_target_popularity": judge.by_popularity(),
        "shuffled_history": judge.shuffled(),
        "oracle_share": judge.oracle_share(),
        "wordings": over_wordings(evidence.wordings),
        "baseline_settings": settings,
        "index_health": evidence.index.health,
        "short_lists": {name: _short(evidence.rankings[who, HIDDEN], split) for who, name in models.items()},
        "proven_exact": {
            protocol: {name: float(evidence.rankings[who, protocol].exact.mean()) for who, name in models.items()}
            for protocol in (HIDDEN, SHOWN)
        },
        **(
            {"made_elsewhere": {name: int(both[SHOWN].lengths.max()) for name, both in evidence.others.items()}}
            if evidence.others
            else {}
        ),
        **({SAMPLED: judge.sampled()} if evidence.candidates else {}),
        **({} if evidence.earlier is None else {"earlier": {**earlier_run(evidence)["earlier"], **judge.earlier()}}),
        "rows": len(split.test),
        "targets_seen_before": split.seen_before(split.test),
        "log": split.log.facts(),
        "split": split.notes,
        "scores": evidence.recipe.settings["rank"].get("scores", "full"),
        "beams": evidence.rankings["tuned", HIDDEN].items.shape[1],
        "audits": evidence.audits,
    }
    data = {
        "recipe": evidence.recipe.name,
        "settings": evidence.recipe.settings,
        "results": results,
        "measured": {**evidence.measured, **took},
        "training": evidence.training,
        "environment": evidence.environment,
        "said": ranking_words(results),
        "examples": judge.in_words(examples),
    }
    return Report(data, page(data, ranking_figures(data), kind="ranking"), ranking_text(data))


def _baseline_lists(
    evidence: Evidence, ease_items: int, width: int, room: Room
) -> tuple[dict[str, dict[str, Placed]], dict[str, Any], dict[str, Any]]:
    """Places and lists of every baseline for the test rows, its settings, and the seconds that it took; built once for a split and kept."""
    made_by: tuple[Any, ...] = (ease, item_knn, markov, popularity, repeat_last, list_rows)
    keys: dict[str, Any] = {"ease_items": ease_items, "width": width}
    if evidence.sasrec is not None:
        made_by = (*made_by, sasrec)
    protocols: tuple[str, ...] = (HIDDEN, SHOWN)
    if evidence.candidates:
        keys |= {"candidates": [max(map(len, evidence.candidates)) - 1, evidence.seed]}
        protocols, made_by = (*protocols, SAMPLED), (*made_by, place_among)

    def build(work: Path) -> None:
        here = Room(room.gigabytes, work)
        _save_baselines(evidence, baselines(evidence, ease_items, here), width, here, work)

    folder = evidence.cached("baselines", keys, build, made_by, () if evidence.sasrec is None else (SASREC,))
    with np.load(folder / "lists.npz", allow_pickle=False) as saved:
        names = [str(n) for n in saved["names"]]
        lists = {
            name: {p: Placed(saved[f"{i} {p} place"], saved[f"{i} {p} items"]) for p in protocols}
            for i, name in enumerate(names)
        }
        settings = {name: json.loads(str(saved[f"{i} settings"])) for i, name in enumerate(names)}
        took = {
            f"baseline, {name}": {"seconds": float(saved[f"{i} seconds"])}
            for i, name in enumerate(names)
            if f"{i} seconds" in saved
        }
    return lists, settings, took


def _save_baselines(evidence: Evidence, fitted: Iterator[Baseline], width: int, room: Room, work: Path) -> None:
    """Fit, list and let go one baseline after another."""
    arrays: dict[str, Any] = {}
    names, started = [], time.perf_counter()
    for i, baseline in enumerate(fitted):
        for protocol, lists in _every(evidence, baseline.score, width, room, baseline.name).items():
            arrays[f"{i} {protocol} place"], arrays[f"{i} {protocol} items"] = lists.place, lists.items
        arrays[f"{i} settings"] = np.array(json.dumps(baseline.settings))
        arrays[f"{i} seconds"] = np.array(time.perf_counter() - started)  # from the fit of this one on
        names.append(baseline.name)
        started = time.perf_counter()
    np.savez_compressed(work / "lists.npz", names=np.array(names), **arrays)


def baselines(evidence: Evidence, ease_items: int, room: Room) -> Iterator[Baseline]:
    """The baselines, each fitted when it is asked for. Of large weights only those of one baseline are held."""
    split = evidence.split
    yield popularity(split)
    yield repeat_last(split)
    yield markov(split)
    yield item_knn(split, most_items=ease_items, room=room)
    ease_row = ease(split, most_items=ease_items, room=room)
    yield ease_row
    yield ease_with_markov(split, ease_row, room=room)
    del ease_row
    if evidence.sasrec is not None:
        yield sasrec(split, evidence.sasrec())


def _every(evidence: Evidence, score: Scorer, width: int, room: Room, name: str) -> dict[str, Placed]:
    """Lists for the test rows under both protocols, and the places among drawn candidates where there are any."""
    split = evidence.split
    found = list_rows(split, split.test, score, width=width, room=room, said=f"listing by {name}")
    lists = dict(zip((HIDDEN, SHOWN), found, strict=True))
    if evidence.candidates:
        lists[SAMPLED] = place_among(split, split.test, score, evidence.candidates, room=room)
    return lists


def _oracle_lists(evidence: Evidence, name: str, width: int, room: Room) -> dict[str, Placed]:
    oracle = named(name, HOMES["eval.oracle"], evidence.recipe.where("eval.oracle"))
    arguments = {k: v for k, v in evidence.recipe.settings["data"].items() if k != "call"}
    arguments.setdefault("seed", evidence.seed)
    return _every(evidence, lambda rows: oracle(evidence.split, rows, **arguments), width, room, ORACLE)


def _short(ranked: Ranking, split: Split) -> int:
    """How many lists hold fewer items than were searched for."""
    return int((ranked.lengths < min(ranked.items.shape[1], split.log.n_items)).sum())


def model_lists(ranked: Ranking, targets: NDArray[np.int32]) -> Placed:
    """A model's lists with the places of the targets."""
    place = target_ranks(ranked, targets)
    place[place >= ranked.items.shape[1]] = NOWHERE
    return Placed(place, ranked.items)


def _mean_known(values: NDArray[np.float64]) -> float:
    """Mean of one value a row, NaN left out; NaN where nothing else is there."""
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


@dataclass
class _Judge:
    """Turns places and lists into numbers; `lists[row][protocol]`."""

    evidence: Evidence
    k: list[int]
    lists: dict[str, dict[str, Placed]]
    room: Room

    def __post_init__(self) -> None:
        self.split = self.evidence.split
        self.rows = self.split.test
        self.bootstrap = Bootstrap(self.rows.user, seed=self.evidence.seed, room=self.room)
        self.counts = train_counts(self.split)
        self.one = np.ones(len(self.rows), dtype=np.int64)

    def table(self, protocol: str) -> dict[str, dict[str, Any]]:
        """One entry a row of the table: each metric as [mean, low, high], coverage and novelty at the largest k."""
        last = self.k[-1]
        table = {}
        for name, by_protocol in self.lists.items():
            if protocol not in by_protocol:
                continue
            lists = by_protocol[protocol]
            entry: dict[str, Any] = {}
            for metric, function in (("recall", recall), ("ndcg", ndcg), ("mrr", mrr)):
                for k in self.k if metric != "mrr" else [last]:
                    entry[f"{metric}@{k}"] = self.bootstrap.mean(function(hits_at(lists.place, k), self.one, k))
            table[name] = entry
            if protocol == SAMPLED:
                continue
            entry[f"coverage@{last}"] = coverage(lists.items, self.split.log.n_items, last)
            entry[f"novelty@{last}"] = _mean_known(novelty(lists.items, self.counts, last))
        return table

    def differences(self, protocol: str, row: str) -> dict[str, Any]:
        """`row` minus each other row, NDCG and recall at the largest k, paired over users: [difference, low, high]."""
        last = self.k[-1]
        out: dict[str, Any] = {"metric": f"ndcg@{last}", "best_baseline": self.best_baseline(protocol)}
        for key, metric in (("differences", ndcg), ("recall_differences", recall)):
            value = {
                n: metric(hits_at(by[protocol].place, last), self.one, last)
                for n, by in self.lists.items()
                if protocol in by
            }
            out[key] = {n: self.bootstrap.mean(value[row] - value[n]) for n in value if n != row}
        return out

    def best_baseline(self, protocol: str) -> str:
        """The row without a language model, of those that the run made itself, that has the highest test NDCG: the hardest rival."""
        last = self.k[-1]
        rivals = [
            n
            for n, by in self.lists.items()
            if protocol in by and n not in (*MODELS.values(), *self.evidence.others, ORACLE)
        ]
        return max(
            rivals, key=lambda n: float(ndcg(hits_at(self.lists[n][protocol].place, last), self.one, last).mean())
        )

    def sampled(self) -> dict[str, Any]:
        """The table over drawn candidates, what was drawn, and the tuned model minus each other row."""
        drawn = [len(one) - 1 for one in self.evidence.candidates]
        return {
            "heading": f"1 + {max(drawn)} sampled candidates, seed {self.evidence.seed}, not to be compared with full ranking",
            "drawn": max(drawn),
            "fewer": sum(one < max(drawn) for one in drawn),
            "table": self.table(SAMPLED),
            "tuned_against": self.differences(SAMPLED, TUNED),
        }

    def earlier(self) -> dict[str, Any]:
        """What became of the test rows of the run that this one goes on from, seen items hidden: NDCG and recall of its model and of
        the tuned one at the largest k, and the difference, each [mean, low, high]; None where no row is left."""
        before, last = self.evidence.before, self.k[-1]
        if before is None:
            return {"leaked": None, "rows": 0, "gone": 0, "trained": 0}
        rows = len(before.targets)
        told: dict[str, Any] = {"leaked": before.leaked, "rows": rows, "gone": before.gone, "trained": before.trained}
        if not rows:
            return told
        number = {user: i for i, user in enumerate(dict.fromkeys(before.users))}
        bootstrap = Bootstrap(np.array([number[u] for u in before.users]), seed=self.evidence.seed, room=self.room)
        targets, one = np.array(before.targets, dtype=np.int32), np.ones(rows, dtype=np.int64)
        for name, metric in (("ndcg", ndcg), ("recall", recall)):
            was, now = (
                metric(hits_at(model_lists(before.rankings[who], targets).place, last), one, last)
                for who in ("untuned", "tuned")
            )
            told[f"{name}@{last}"] = {
                "earlier": bootstrap.mean(was), "now": bootstrap.mean(now), "difference": bootstrap.mean(now - was),
            }  # fmt: skip
        return {**told, "metric": f"ndcg@{last}"}

    def oracle_share(self) -> float | None:
        """How much of the way from popularity to the oracle the tuned model goes (NDCG, seen items hidden).

        None without an oracle, and beside one that is not better than popularity.
        """
        if ORACLE not in self.lists:
            return None
        last = self.k[-1]
        mean = {n: float(ndcg(hits_at(by[HIDDEN].place, last), self.one, last).mean()) for n, by in self.lists.items()}
        way = mean[ORACLE] - mean["popularity"]
        return (mean[TUNED] - mean["popularity"]) / way if way > 0 else None

    def by_history_length(self) -> list[dict[str, Any]]:
        """Recall by the length of the history, in quarters of the test rows."""
        return self._by(self.rows.stop - self.rows.first)

    def by_popularity(self) -> list[dict[str, Any]]:
        """Recall by the training events of the target, in quarters of the test rows."""
        return self._by(self.counts[self.split.targets(self.rows)])

    def _by(self, value: NDArray[Any]) -> list[dict[str, Any]]:
        last = self.k[-1]
        edges = np.unique(np.quantile(value, [0, 0.25, 0.5, 0.75, 1], method="nearest"))
        names = (self.best_baseline(HIDDEN), UNTUNED, TUNED)
        out = []
        for i, low in enumerate(edges[:-1] if len(edges) > 1 else edges):
            high = edges[i + 1] if len(edges) > 1 else low
            closing = i >= len(edges) - 2
            here = (value >= low) & ((value <= high) if closing else (value < high))
            entry = {"from": float(low), "to": float(high if closing else high - 1), "rows": int(here.sum())}
            for name in names:
                entry[name] = float((self.lists[name][HIDDEN].place[here] < last).mean())
            out.append(entry)
        return out

    def shuffled(self) -> dict[str, Any] | None:
        """What shuffling the history costs the tuned model, on the sampled rows, seen items hidden."""
        sample, ranked = self.evidence.shuffled_rows, self.evidence.shuffled
        if sample is None or ranked is None:
            return None
        last = self.k[-1]
        chosen = np.isin(self.rows.row, sample.row)
        place = model_lists(ranked, self.split.targets(sample)).place
        one = np.ones(len(place), dtype=np.int64)
        usual = ndcg(hits_at(self.lists[TUNED][HIDDEN].place[chosen], last), one, last)
        mixed = ndcg(hits_at(place, last), one, last)
        bootstrap = Bootstrap(sample.user, seed=self.evidence.seed, room=self.room)
        return {
            "metric": f"ndcg@{last}", "rows": len(place), "in_order": bootstrap.mean(usual), "shuffled": bootstrap.mean(mixed),
            "cost": bootstrap.mean(usual - mixed),
        }  # fmt: skip

    def in_words(self, count: int) -> list[dict[str, Any]]:
        """A few users with history, target and recommendations as titles, spread over the test rows.

        `place`: where the target is counted, from 1, None where it is not listed; `hit`: which of `recommended` it is, or None.
        Beside items with the score of the target they differ.
        """
        titles = self.split.log.items["title"]
        chosen = evenly(len(self.rows), count)
        best = "mixed" if MIXED in self.lists else "tuned"
        ranked = self.evidence.rankings[best, HIDDEN].items[:, : min(10, self.k[-1])]
        targets, place = self.split.targets(self.rows), self.lists[MODELS[best]][HIDDEN].place
        return [
            {
                "user": self.split.log.users[int(self.rows.user[i])],
                "history": [titles[int(item)] for item in self.split.history(self.rows, int(i))],
                "target": titles[int(targets[i])],
                "recommended": [titles[int(item)] for item in ranked[i] if item >= 0],
                "place": int(place[i]) + 1 if place[i] != NOWHERE else None,
                "hit": next((at for at, item in enumerate(ranked[i], start=1) if item == targets[i]), None),
            }
            for i in chosen
        ]
