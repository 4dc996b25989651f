"""A log of 8 users and 6 items with hand-made lists: small enough to work out every figure of its report by hand.

Events, oldest first; the last is the test target, the one before it the validation target, the others are training events.

    user  events     seen   target   not seen       training events a 15, b 7, c 3, d 1, e 0, f 0: with one more each, of
    u0    a b d      ab     d        c d e f        26 + 6 = 32, they are 1, 2, 3, 4, 5 and 5 bits (novelty)
    u1    b c e      bc     e        a d e f
    u2    a b d f    abd    f        c e f          what came after what in training:
    u3    a a c e b  ace    b        b d f          a -> b 5, a 4, c 2
    u4    a b a c f  abc    f        d e f          b -> a 3, d 1
    u5    cabab a f  abc    f        d e f          c -> a 1, b 1
    u6    aaaba d a  abd    a        c e f          d -> a 1
    u7    aacbda b e abcd   e        e f
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.decoding.ranking import Ranking
from rectune.indexing.atomic import atomic
from rectune.log.cleaning import make_log
from rectune.log.split import Rows, Split
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.recipe.load import Recipe
from rectune.run.judged import HIDDEN, SHOWN, Evidence
from rectune.tasks.next_item import next_item

EVENTS = "abd bce abdf aaceb abacf cababaf aaabada aacbdabe".split()
TITLES = ["Apple", "Bread", "Cheese", "Dates", "Egg", "Fig"]
NONE = 99  # the place of a target that is not listed
WIDTH = 4  # beams

# Lists of u0 … u7, best first; '=' says that an item has the score of the one before it.
LISTS = {
    ("untuned", HIDDEN): "cefd adf cfe df dfe fde cef fe",
    ("untuned", SHOWN): "abcd abcd abcf acbd abcd fabc bacd abce",
    ("tuned", HIDDEN): "dcef aedf fce bdf fde f=de cef ef",
    ("tuned", SHOWN): "abdc bcad abcd abce afbc abcf cabd bae=f",
    ("mixed", HIDDEN): "ced adf ce dfb de def cef f=e",
    ("mixed", SHOWN): "abcd bcde abcd abcd abcf abcd abcd abcd",
}
PRIOR = "adbcef bafdec acfbde abcdef abcdef abcefd abcdef abcdfe"
SHUFFLED = {0: "cdef", 2: "cef", 5: "def", 7: "ef"}  # the tuned model's lists of four users, histories shuffled

# Where the target stands, worked out from the lists above: ties count against it, and u6 has its target in its history.
PLACES = {
    HIDDEN: {
        # c above d; a, d above e and f beside it; c above f and e beside it; b first; d above f and e beside it, twice; f beside e
        "popularity": [1, 3, 2, 0, 2, 2, NONE, 1],
        # nothing that was not seen has a score: all other candidates stand beside the target
        "repeat last": [3, 3, 2, 2, 2, 2, NONE, 1],
        # after b comes d; the others are told apart by popularity, as a and b (after c and d) are seen or not asked for
        "first-order Markov": [0, 3, 2, 0, 2, 2, NONE, 1],
        "prior alone": [0, 3, 1, 0, 2, 1, NONE, 1],
        "oracle": [0, 0, 0, 0, 0, 0, NONE, 0],
        "untuned model": [3, NONE, 1, NONE, 1, 0, NONE, 1],
        "tuned model": [0, 1, 0, 0, 0, 1, NONE, 0],
        "tuned model + prior": [2, NONE, NONE, 2, NONE, 2, NONE, 1],
    },
    SHOWN: {
        "popularity": [3, 5, 5, 1, 5, 5, 0, 5],
        # u6 touched d, then a: a is second; for the others every item that was seen, and every other one, stands above or beside
        "repeat last": [5, 5, 5, 5, 5, 5, 1, 5],
        # u0, after b: a, then d; u6, after d: a; u3 has no follower of e and takes popularity: a, then b
        "first-order Markov": [1, 5, 5, 1, 5, 5, 0, 5],
        "prior alone": [1, 4, 2, 1, 5, 4, 0, 5],
        "oracle": [0, 0, 0, 0, 0, 0, 0, 0],
        "untuned model": [3, NONE, 3, 2, NONE, 0, 1, 3],
        "tuned model": [2, NONE, NONE, 1, 1, 3, 1, 3],
        "tuned model + prior": [3, 3, NONE, 1, 3, NONE, 0, NONE],
    },
}  # fmt: skip


def split_of() -> Split:
    """The log above, each user's last two events held out."""
    rows = [(f"u{u}", item) for u, items in enumerate(EVENTS) for item in items]
    events = pl.DataFrame(rows, schema=["user", "item"], orient="row")
    items = pl.DataFrame({"item_id": list("abcdef"), "title": TITLES})
    return leave_one_out(make_log(events, items, source="fruit stall"))


def ranking_of(lists: list[str], rows: Rows, *, proven: int = 0) -> Ranking:
    """Lists as above, of `rows`; the first `proven` of them are proven to be exact."""
    items = np.full((len(lists), WIDTH), -1, dtype=np.int32)
    scores = np.full((len(lists), WIDTH), -np.inf, dtype=np.float32)
    for i, text in enumerate(lists):
        place, score = 0, 0.0
        for at, sign in enumerate(text):
            if sign == "=":
                continue
            score -= 0.0 if text[at - 1 : at] == "=" else 1.0
            items[i, place], scores[i, place] = "abcdef".index(sign), score
            place += 1
    return Ranking(rows.row, items, scores, np.arange(len(lists)) < proven)


def prior_scores(rows: Rows) -> NDArray[np.float64]:
    """What the prior gives each item, (rows, items): 6 for the first of its order, 5 for the second …"""
    return np.array([[6.0 - PRIOR.split()[user].index(item) for item in "abcdef"] for user in rows.user])


def oracle(split: Split, rows: Rows, *, seed: int) -> NDArray[np.float64]:
    """A generator that knows what comes next, (rows, items)."""
    assert seed == 3
    return np.eye(split.log.n_items)[split.targets(rows)]


def evidence(folder: Path, *, prior: bool = True, **lists: str) -> Evidence:
    """What a run of the recipe `fruit` hands to its evaluator; `lists` replaces those of a model, seen items hidden."""
    split = split_of()
    index = atomic(split)
    proven = {"untuned": 4, "tuned": 6, "mixed": 8}
    written = LISTS | {(who, HIDDEN): text for who, text in lists.items()}
    rankings = {
        (who, protocol): ranking_of(text.split(), split.test, proven=proven[who] - (protocol == SHOWN))
        for (who, protocol), text in written.items()
        if prior or who != "mixed"
    }
    sample = split.test.take(np.array(list(SHUFFLED)))
    return Evidence(
        recipe=Recipe("fruit", {"data": {"call": "none"}, "rank": {}, "seed": 3}), split=split, index=index,
        task=next_item(split, index, "test"), task_section={}, rankings=rankings, answers={},
        shuffled=ranking_of(list(SHUFFLED.values()), sample), shuffled_rows=sample,
        training=[[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "eval_ndcg@10": 0.5}]],
        audits=[{"new_tokens": 6}], measured={"training, stage 0": {"seconds": 12.0}, "ranking, tuned": {"seconds": 3.4}},
        environment=ENVIRONMENT, cached=cached_in(folder), seed=3,
        wordings=[{"wording": 0, "recall@10": 0.5, "ndcg@10": 0.25}, {"wording": 1, "recall@10": 0.75, "ndcg@10": 0.5}],
        prior=prior_scores if prior else None,
        prior_weight={"weight": 20.0, "validation": [{"weight": 0.0, "ndcg@10": 0.125}, {"weight": 20.0, "ndcg@10": 0.25}]} if prior else None,
    )  # fmt: skip


ENVIRONMENT: dict[str, Any] = {
    "rectune": "0", "commit": None, "python": "3", "versions": {"numpy": "2"}, "device": "cpu", "threads": 1, "cores": 1,
    "date": "2026-01-01", "fingerprints": {}, "tasks": [], "templates": {},
}  # fmt: skip


def cached_in(folder: Path) -> Any:
    """A stage for an evaluator, built in `folder`."""

    def cached(name: str, keys: Any, build: Any, made_by: Any, needs: Any = ()) -> Path:
        (folder / name).mkdir(parents=True, exist_ok=True)
        build(folder / name)
        return folder / name

    return cached


def resampled(values: list[float], *, samples: int = 1000) -> tuple[float, float]:
    """The 95 % interval of a mean: users drawn with replacement, as many as there are, the middle 95 % of the means."""
    draw, of = np.random.default_rng(3), np.array(values)
    means = [of[draw.integers(0, len(of), len(of))].mean() for _ in range(samples)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
