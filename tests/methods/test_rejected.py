"""Preference tuning: which items are rejected beside a target, and which never are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from rectune.decoding.ranking import Ranking
from rectune.log.cleaning import make_log, with_shown
from rectune.log.few_shots import few_shots
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.methods.preference import Preferences, Rejecting, as_many_as_steps_read, check_rows
from rectune.tasks.examples import Mixture, TaskSpec
from rectune.tasks.rows import TaskRows
from tests.offered import files


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
    assert [count for count, _ in asked] == [len(rows), 2]
    assert asked[0][1] != asked[1][1]  # what is kept is that of the same rows
    short, _ = sides(split, "ranked", 4, tmp_path / "short", search)
    with pytest.raises(ValueError, match=r"task `next_item`, row 1: 4 are to be rejected, and 3 items of its list"):
        short.list_now()


@pytest.mark.parametrize("steps", [-1, 1, 3, 7, 12, 13, 20])
def test_no_more_rows_are_listed_than_the_steps_read(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rectune.methods.preference.world_size", lambda: 2)
    config = SimpleNamespace(max_steps=steps, train_batch_size=3, gradient_accumulation_steps=2)
    rows = [TaskRows(np.arange(n), lambda i: {}, "text", np.arange(n)) for n in (101, 20, 3, 0)]
    specs = [
        TaskSpec(f"{share}", lambda part, some=some: some, Reads("target"), share)  # type: ignore[arg-type, misc]
        for some, share in zip(rows, (0.4, 5.0, 0.1, 1.0), strict=True)
    ]

    def mixture(some: list[TaskSpec]) -> Mixture:
        encoder: Any = SimpleNamespace(tokenizer=None)
        return Mixture(some, "train", encoder, seed=0, max_length=None, loss_on_all=False)

    whole = mixture(specs)
    assert len(whole) == 40 + 100 + 1
    few = as_many_as_steps_read(whole, config)
    if steps < 0 or steps > 11:  # 12 examples a step
        assert few is None
        return
    assert few is not None
    own = mixture(few)
    assert steps * 12 <= len(own) <= steps * 12 + 3  # an example of each task at most beyond
    share = np.diff([0, *own._ends]) / len(own)
    assert share == pytest.approx(np.array([40, 100, 1]) / 141, abs=0.1)


def test_a_row_that_was_not_listed_is_no_other_rows(tmp_path: Path) -> None:
    def search(model: Any, rows: TaskRows, shelf: Any, *, shards: Path) -> Ranking:
        items = np.tile(np.arange(11, dtype=np.int32), (len(rows), 1))
        return Ranking(
            rows.row.astype(np.int64), items, np.zeros(items.shape, np.float32), np.zeros(len(rows), dtype=bool)
        )

    made, rows = sides(shop(), "ranked", 2, tmp_path / "lists", search)
    made.list_now(np.array([3, 1]))
    for i in (0, 2, len(rows) - 1):
        with pytest.raises(RuntimeError, match=f"row {int(rows.row[i])} is read, and was not listed"):
            made.rejected(rows, i, 0, "")


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
