"""Histories chosen for the target: by hand, and as a key of a recipe."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.cli import main
from rectune.indexing.atomic import atomic
from rectune.log.cleaning import make_log
from rectune.log.split import Rows, Split
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.recipe.load import load_recipe
from rectune.run.run import Run, open_recipe
from rectune.tasks.history import mixed, recent, similar, window
from rectune.tasks.like_or_dislike import like_or_dislike
from rectune.tasks.rating import rating
from rectune.tasks.rows import TaskRows
from rectune.vectors.item_vectors import ItemVectors
from tests.test_cli import fails

# cosine with a: a 1, e 5/√26 = .981, c 1/√2 = .707, b and d 0; the ids are in another order than the catalogue's
IDS = ("d", "c", "b", "a", "e")
VECTORS = ItemVectors(IDS, (np.array([[0, -2], [3, 3], [0, 1], [4, 0], [5, 1]], dtype=np.float32),))


def split_of() -> Split:
    """Events 0-6 are u: a b c d b e a, rated 1 2 3 4 5 1 2; events 7-9 are v: b c a. The last of each is the test target."""
    rows = [("u", item, 1 + n % 5) for n, item in enumerate("abcdbea")] + [("v", item, 4) for item in "bca"]
    events = pl.DataFrame(rows, schema=["user", "item", "rating"], orient="row")
    items = pl.DataFrame({"item_id": list("abcde"), "title": list("ABCDE")})
    return leave_one_out(make_log(events, items, source="tea shop"), max_history=2)


def chosen(select: Any, row: int = 0) -> list[int]:
    split = split_of()
    return [int(event) for event in select(split, split.test)(row)]


def test_the_window_is_the_splits_history() -> None:
    assert chosen(window) == [4, 5]


def test_recent_events_go_beyond_the_splits_window() -> None:
    assert chosen(partial(recent, events=3)) == [3, 4, 5]
    assert chosen(partial(recent, events=50)) == [0, 1, 2, 3, 4, 5]


def test_similar_events_are_those_of_the_nearest_items_in_the_order_of_time() -> None:
    assert chosen(partial(similar, vectors=VECTORS, events=1)) == [0]  # a itself
    assert chosen(partial(similar, vectors=VECTORS, events=2)) == [0, 5]  # a, then e
    assert chosen(partial(similar, vectors=VECTORS, events=3)) == [0, 2, 5]  # and c between them


def test_of_equally_similar_events_the_later_are_taken() -> None:
    assert chosen(partial(similar, vectors=VECTORS, events=4)) == [0, 2, 4, 5]  # b (1), d (3) and b (4) are all at 0
    assert chosen(partial(similar, vectors=VECTORS, events=5)) == [0, 2, 3, 4, 5]


def test_a_mixture_is_half_recent_half_similar_without_repeats() -> None:
    assert chosen(partial(mixed, vectors=VECTORS, events=2)) == [0, 5]
    assert chosen(partial(mixed, vectors=VECTORS, events=3)) == [0, 4, 5]
    assert chosen(partial(mixed, vectors=VECTORS, events=4)) == [0, 2, 4, 5]
    assert chosen(partial(mixed, vectors=VECTORS, events=1)) == [5]


@pytest.mark.parametrize("select", [similar, mixed])
def test_a_short_history_is_shown_whole(select: Any) -> None:
    assert chosen(partial(select, vectors=VECTORS, events=9), row=1) == [7, 8]
    split = split_of()
    nothing = Rows(*(np.array([value]) for value in (0, 0, 0, 0, 0, 0)))
    assert len(select(split, nothing, VECTORS, events=3)(0)) == 0


def test_an_item_whose_vector_is_zero_is_like_nothing() -> None:
    zero = ItemVectors(IDS, (np.zeros((5, 2), dtype=np.float32),))
    assert chosen(partial(similar, vectors=zero, events=2)) == [4, 5]


@pytest.mark.parametrize("select", [recent, partial(similar, vectors=VECTORS), partial(mixed, vectors=VECTORS)])
def test_fewer_than_one_event_is_refused(select: Any) -> None:
    with pytest.raises(ValueError, match=r"`history.events` must be at least 1, got 0"):
        chosen(partial(select, events=0))


def test_an_item_without_a_vector_is_named() -> None:
    with pytest.raises(ValueError, match=r"`vectors`: no vector for item `a` \(1 of 5 missing\)"):
        chosen(partial(similar, vectors=ItemVectors(IDS[:3] + IDS[4:], (VECTORS.blocks[0][[0, 1, 2, 4]],)), events=1))


@pytest.mark.parametrize("task", [like_or_dislike, rating])
def test_a_task_prints_the_chosen_events_with_what_the_user_said_of_each(task: Any) -> None:
    split = split_of()
    rows: TaskRows = task(split, atomic(split), "test", history=partial(similar, vectors=VECTORS, events=3))
    history = rows.variables(0)["history"]
    assert [item["title"] for item in history] == ["A", "C", "E"]
    said = [item["liked"] if task is like_or_dislike else item["rating"] for item in history]
    assert said == ([False, False, False] if task is like_or_dislike else ["1", "3", "1"])


# --------------------------------------------------------------------------------------------------- as a recipe's key


def with_vectors(folder: Path, *, flipped: bool = False) -> list[tuple[str, str]]:
    """Overrides that add vectors of ten items on a circle, from a file."""
    angle = np.arange(10) * (-1.0 if flipped else 1.0) ** np.arange(10)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    table = {"item_id": [f"i{n}" for n in range(10)], "vector": circle.tolist()}
    pl.DataFrame(table).write_parquet(folder / "circle.parquet")
    return [("vectors", "[{call: from_file, path: circle.parquet}]")]


SIMILAR = ("tasks.0.history", "{call: similar, events: 4}")


def line_of(recipe: Path, *overrides: tuple[str, str]) -> Run:
    return open_recipe(load_recipe(recipe, overrides))


def test_the_line_gives_the_runs_vectors_to_the_selector(rated_recipe: Path, tmp_path: Path) -> None:
    line = line_of(rated_recipe, *with_vectors(tmp_path), SIMILAR)
    events = similar(line.split, line.split.test, line["vectors"], events=4)(5)
    titles = line.log.items["title"]
    expected = [titles[int(line.log.item_codes[event])] for event in events]
    assert [item["title"] for item in line.rows.variables(5)["history"]] == expected
    assert len(expected) == 4  # more than the split's window of 3
    assert "vectors" in {box.name for box in line.line}


def test_vectors_and_selector_enter_the_fingerprints_of_what_they_change(rated_recipe: Path, tmp_path: Path) -> None:
    plain = line_of(rated_recipe, *with_vectors(tmp_path))
    first = line_of(rated_recipe, *with_vectors(tmp_path), SIMILAR)
    fewer = line_of(rated_recipe, *with_vectors(tmp_path), ("tasks.0.history", "{call: similar}"))
    bases = [line.place("base").fingerprint for line in (plain, first, fewer)]
    before = first.place("vectors").fingerprint
    other = line_of(rated_recipe, *with_vectors(tmp_path, flipped=True), SIMILAR)
    bases.append(other.place("base").fingerprint)  # from scratch: its tokenizer is trained on the prompts
    assert other.place("vectors").fingerprint != before
    assert len(set(bases)) == 4
    less = line_of(rated_recipe, *with_vectors(tmp_path), ("tasks.0.share", "0.5"))
    assert less.place("base").fingerprint == bases[0]  # the texts are the same
    asked = [line.asked.tasks[0].keys(without=tmp_path) for line in (plain, first, fewer, less)]
    assert len({json.dumps(keys, default=str) for keys in asked}) == 4
    assert {line.place("index").fingerprint for line in (plain, first, fewer, other)} == {
        plain.place("index").fingerprint
    }
    assert "vectors" not in {box.name for box in plain.line}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--tasks.0.history", '{call: similar}'], "`similar` chooses events by item vectors. Add a section, e.g. vectors:"),
        (["--tasks.0.history", '{call: recent, events: 0}'], "`history.events` must be at least 1, got 0"),
        (["--tasks.0.history", '{call: recent, event: 4}'], "`tasks.0.history.event`: unknown key. Did you mean `events`"),
        (["--tasks.0.history", '{call: "rectune.tasks.history:similiar"}'], "Did you mean `similar`"),
        (["--tasks.0.history", "similar"], "`tasks.0.history`: got 'similar', but it must name a function"),
    ],
)  # fmt: skip
def test_a_wrong_history_is_one_line(
    rated_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    assert message in fails(capsys, "train", str(rated_recipe), *overrides)
    assert not list(tmp_path.glob("run/report*"))


def test_a_task_that_must_not_tell_its_target_takes_no_selector(
    quick_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = fails(capsys, "train", str(quick_recipe), "--tasks.0.history", "{call: recent}")
    assert (
        "`next_item` takes the split's history only: one that is chosen for its target would tell the target" in error
    )


def test_a_third_party_names_its_own(
    rated_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "oldest.py").write_text(
        "def oldest(split, rows, *, events: int = 2):\n    return lambda i: range(rows.first[i], rows.stop[i])[:events]\n"
    )
    line = line_of(rated_recipe, ("tasks.0.history", '{call: "oldest:oldest", events: 1}'))
    first = line.log.items["title"][int(line.log.item_codes[line.split.test.first[3]])]
    assert [item["title"] for item in line.rows.variables(3)["history"]] == [first]


@pytest.mark.heavy
def test_a_run_with_similar_histories_is_judged_again_from_its_folder_alone(rated_recipe: Path, tmp_path: Path) -> None:
    overrides = [f"--{SIMILAR[0]}", SIMILAR[1]]
    for key, value in with_vectors(tmp_path):
        overrides += [f"--{key}", value]
    steps = ["--stages.0.eval_steps", "2", "--stages.0.save_steps", "2"]
    assert main(["train", str(rated_recipe), "--traceback", *steps, *overrides]) == 0
    first = json.loads((tmp_path / "run" / "report.json").read_text())
    (tmp_path / "circle.parquet").unlink()
    assert main(["eval", str(tmp_path / "run"), "--traceback"]) == 0
    again = json.loads((tmp_path / "run" / "report.json").read_text())
    assert again["results"] == first["results"]
    assert "vectors" in again["environment"]["fingerprints"]


def test_rows_with_both_histories_train_together(rated_recipe: Path, tmp_path: Path) -> None:
    entry = '{{call: like_or_dislike, template: like-or-dislike-names.jinja, history: {{call: "rectune.tasks.history:{}", events: 2}}}}'
    both = ("tasks", f"[{entry.format('similar')}, {entry.format('recent')}]")
    line = line_of(rated_recipe, *with_vectors(tmp_path), both)
    one, other = (spec.rows("train") for spec in line.specs(line.asked.tasks))
    assert one.row.tolist() == other.row.tolist()
    histories = [
        [[i["title"] for i in rows.variables(r)["history"]] for r in range(len(rows))] for rows in (one, other)
    ]
    assert histories[0] != histories[1]
