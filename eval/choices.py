"""The judge of runs that choose among candidates: hits, and what the model writes when nothing holds it to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rectune.eval.figures import choice_figures
from rectune.eval.intervals import Bootstrap
from rectune.eval.metrics.hits import hits_at
from rectune.eval.metrics.mrr import mrr
from rectune.eval.metrics.recall import recall
from rectune.eval.page import choice_text, page
from rectune.eval.ranking import MIXED, MODELS, PRIOR, TUNED, baselines
from rectune.eval.sentences import choice_words
from rectune.eval.several import over_wordings, summarise
from scipy import sparse

from rectune.baselines.ease import ease
from rectune.baselines.item_knn import item_knn
from rectune.baselines.markov import markov
from rectune.baselines.popularity import popularity
from rectune.baselines.repeat_last import repeat_last
from rectune.baselines.sasrec import sasrec
from rectune.baselines.scoring import MOST_ITEMS, NOWHERE, Baseline, place_among
from rectune.decoding.ranking import target_ranks
from rectune.log.split import Rows, Split, evenly
from rectune.run.judged import SHOWN, Evidence, Report, earlier_run, judge
from rectune.run.sasrec_box import NAME as SASREC
from rectune.runtime.ragged import Ragged
from rectune.runtime.room import Room

MET = "candidates met in training"
TOP = "hit ratio@1"


@judge("choice", summarise=summarise)
def choices(
    evidence: Evidence, *, k: list[int] = [1, 5], ease_items: int = MOST_ITEMS, memory: float = 2.0, free_rows: int = 1000,  # noqa: B006  never changed
    free_tokens: int = 20, wording_rows: int = 0, examples: int = 6,
) -> Report:  # fmt: skip
    """Judge a run that chooses among the candidates of each row (`choose_item`).

    Rows: the baselines of `ranking`, over the candidates alone; a rule that reads no history and takes the target beside which a training row offered
    most of the other candidates (where these were drawn by the target, it finds them again); the untuned and the tuned model, and with the prior. Hit ratio at `k` and
    the mean reciprocal rank, intervals resample users. `free_rows`: after how many test rows the models also write `free_tokens` tokens freely, judged as
    S-DPO does: valid where exactly one candidate stands in the text, a hit where that is the target; both are shares of all these rows (0: none).
    `ease_items`, `memory`, `wording_rows`, `examples`: as in `ranking`.
    """
    split, rows, room = evidence.split, evidence.split.test, Room(memory)
    offered = evidence.task.candidates
    assert offered is not None
    targets = split.targets(rows)
    among = _target_first(offered, targets)
    place, settings = _baseline_places(evidence, among, ease_items, room)
    if evidence.prior is not None:
        place[PRIOR] = place_among(split, rows, evidence.prior, among, room=room).place
    for who, name in MODELS.items():
        if (who, SHOWN) in evidence.rankings:
            found = evidence.rankings[who, SHOWN]
            at = target_ranks(found, targets)
            place[name] = np.where(at >= found.items.shape[1], NOWHERE, at)
    bootstrap = Bootstrap(rows.user, seed=evidence.seed, room=room)
    sizes = offered.lengths
    results = {
        "table": {name: _measure(at, sorted({1, *k}), int(sizes.max()), bootstrap) for name, at in place.items()},
        "tuned_against": _differences(place, TUNED, bootstrap),
        "mixed_against": _differences(place, MIXED, bootstrap) if MIXED in place else None,
        "by_chance": float((1 / sizes).mean()),
        "candidates": [int(sizes.min()), int(sizes.max())],
        "free": _free(evidence, offered, free_rows),
        "prior_weight": evidence.prior_weight,
        "wordings": over_wordings(evidence.wordings),
        "baseline_settings": settings,
        "index_health": evidence.index.health,
        "rows": len(rows),
        "users": len(np.unique(rows.user)),
        "log": split.log.facts(),
        "split": split.notes,
        "audits": evidence.audits,
        **earlier_run(evidence),
    }
    data = {
        "recipe": evidence.recipe.name, "settings": evidence.recipe.settings, "results": results, "measured": evidence.measured,
        "training": evidence.training, "environment": evidence.environment, "said": choice_words(results),
        "examples": _in_words(evidence, examples),
    }  # fmt: skip
    return Report(data, page(data, choice_figures(data), kind="choices"), choice_text(data))


def met_in_training(split: Split, train: Ragged, offered: Ragged) -> Baseline:
    """A rule that reads no history: a candidate scores the most others that a training row with that target offered beside it and the row offers, too."""
    targets, n_items = split.targets(split.train), split.log.n_items
    known, place = _sets(train, n_items), {int(row): i for i, row in enumerate(split.test.row)}
    every = _sets(offered, n_items)

    def score(rows: Rows) -> NDArray[np.float64]:
        asked = every[[place[int(row)] for row in rows.row]]
        shared = (asked @ known.T).tocoo()
        of = targets[shared.col]
        both = asked.toarray().astype(bool)[shared.row, of]
        scores = np.zeros((len(rows), n_items))
        np.maximum.at(scores, (shared.row, of), shared.data - both)  # the target itself is no other
        return scores

    return Baseline(MET, {}, score)


def _sets(some: Ragged, n_items: int) -> sparse.csr_matrix:
    ones = np.ones(len(some.values))
    return sparse.csr_matrix((ones, some.values, some.starts), shape=(len(some.starts) - 1, n_items))


def _target_first(offered: Ragged, targets: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    return [
        np.array([target, *(item for item in some if item != target)], dtype=np.int32)
        for target, some in zip(targets, offered.lists(), strict=True)
    ]


def _baseline_places(
    evidence: Evidence, among: list[NDArray[np.int32]], ease_items: int, room: Room
) -> tuple[dict[str, NDArray[np.int64]], dict[str, Any]]:
    """Places of the targets by every baseline, from 0, and its settings; built once for a split and kept."""
    made_by: tuple[Any, ...] = (ease, item_knn, markov, popularity, repeat_last, place_among, met_in_training)
    made_by = made_by if evidence.sasrec is None else (*made_by, sasrec)

    def build(work: Path) -> None:
        here, split = Room(room.gigabytes, work), evidence.split
        found: dict[str, Any] = {}
        for i, baseline in enumerate(_every(evidence, ease_items, here)):
            found[f"{i} place"] = place_among(split, split.test, baseline.score, among, room=here).place
            found[f"{i} about"] = np.array(json.dumps([baseline.name, baseline.settings]))
        np.savez_compressed(work / "places.npz", **found)

    needs = () if evidence.sasrec is None else (SASREC,)
    folder = evidence.cached("baselines", {"ease_items": ease_items, "judge": "choices"}, build, made_by, needs)
    with np.load(folder / "places.npz", allow_pickle=False) as saved:
        about = [json.loads(str(saved[f"{i} about"])) for i in range(len(saved.files) // 2)]
        return {name: saved[f"{i} place"] for i, (name, _) in enumerate(about)}, dict(about)


def _every(evidence: Evidence, ease_items: int, room: Room) -> Iterator[Baseline]:
    split = evidence.split
    train, offered = split.candidates(split.train), split.candidates(split.test)
    if train is not None and offered is not None:
        yield met_in_training(split, train, offered)
    yield from baselines(evidence, ease_items, room)


def _measure(place: NDArray[np.int64], k: list[int], longest: int, bootstrap: Bootstrap) -> dict[str, Any]:
    one = np.ones(len(place), dtype=np.int64)
    entry = {f"hit ratio@{n}": bootstrap.mean(recall(hits_at(place, n), one, n)) for n in k}
    return {**entry, "mrr": bootstrap.mean(mrr(hits_at(place, longest), one, longest))}


def _differences(place: dict[str, NDArray[np.int64]], row: str, bootstrap: Bootstrap) -> dict[str, Any]:
    """`row` minus each other row at the top of the list, paired over users."""
    first = {name: (at == 0).astype(np.float64) for name, at in place.items()}
    rivals = [name for name in place if name not in MODELS.values()]
    return {
        "metric": TOP,
        "best_baseline": max(rivals, key=lambda name: float(first[name].mean())),
        "differences": {name: bootstrap.mean(first[row] - first[name]) for name in place if name != row},
    }


def _free(evidence: Evidence, offered: Ragged, most: int) -> dict[str, Any] | None:
    """Shares of valid texts and of hits, by S-DPO's rule; None where nothing was written, or names are no words."""
    texts = {who: some for who, some in evidence.written.items() if some}
    titles = evidence.index.titles  # as prompts and answers name them
    if not texts or not titles:
        return None
    which = evenly(len(evidence.task), most)
    names = [[titles[item] for item in some] for some in offered.take(which).lists()]
    wanted = [titles[int(item)] for item in evidence.task.target[which]]
    bootstrap = Bootstrap(evidence.split.test.user[which], seed=evidence.seed)
    table = {}
    for who, some in texts.items():
        valid = np.array([sum(name in text for name in row) == 1 for text, row in zip(some, names, strict=True)])
        hit = valid & np.array([title in text for text, title in zip(some, wanted, strict=True)])
        table[MODELS[who]] = {
            TOP: bootstrap.mean(hit.astype(np.float64)), "valid": bootstrap.mean(valid.astype(np.float64)),
        }  # fmt: skip
    return {"rows": len(which), "table": table}


def _in_words(evidence: Evidence, count: int) -> list[dict[str, Any]]:
    split, rows, found = evidence.split, evidence.split.test, []
    titles, lists = split.log.items["title"], evidence.rankings["tuned", SHOWN].items
    for i in evenly(len(rows), count):
        chosen = [int(item) for item in lists[i] if item >= 0][:5]
        target = int(evidence.task.target[i])
        found.append(
            {
                "history": [titles[int(item)] for item in split.history(rows, int(i))],
                "recommended": [titles[item] for item in chosen],
                "target": titles[target],
                "hit": chosen.index(target) + 1 if target in chosen else None,
                "place": lists[i].tolist().index(target) + 1 if target in lists[i] else None,
            }
        )
    return found
