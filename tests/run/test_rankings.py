"""Rows that are ranked beside the evaluation are those of the evaluation, but for what they are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from rectune.recipe.load import load_recipe
from rectune.run.rankings import shuffled_rows
from rectune.run.run import Run, open_recipe
from rectune.tasks.asked_histories import outside_of


@pytest.fixture
def line(quick_recipe: Path) -> Run:
    """A line whose prompts have user tokens; nothing is trained."""
    return open_recipe(load_recipe(quick_recipe, [("index.user_tokens", "7"), ("split.max_history", "5")]))


def test_shuffled_histories_keep_their_users_token_and_their_items(line: Run) -> None:
    rows, task = shuffled_rows(line, 12)
    by_row = {int(row): line.rows.variables(i) for i, row in enumerate(line.rows.row)}
    moved = 0
    for i, row in enumerate(rows.row):
        whole, shuffled = by_row[int(row)], task.variables(i)
        assert shuffled["user"] == whole["user"] != ""
        names = [[item["name"] for item in v["history"]] for v in (whole, shuffled)]
        assert sorted(names[0]) == sorted(names[1])
        moved += names[0] != names[1]
    assert moved > 6


def test_a_history_that_is_given_with_its_user_is_asked_as_in_the_evaluation(line: Run) -> None:
    split, test = line.split, line.split.test
    histories = [split.history(test, i).tolist() for i in range(5)]
    users = [split.log.users[int(test.user[i])] for i in range(5)]
    asked, strangers = (line.rows_of_split(outside_of(split).split(histories, who)) for who in (users, None))
    for i in range(5):
        assert asked.variables(i)["user"] == line.rows.variables(i)["user"] != ""
        assert asked.variables(i)["history"] == line.rows.variables(i)["history"]
        assert strangers.variables(i)["user"] == ""
