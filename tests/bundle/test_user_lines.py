"""Lines of users, as `rectune recommend` and `rectune rank` read them."""

from __future__ import annotations

import pytest

from rectune.bundle.user_lines import UserLine, user_line


def test_a_line_gives_a_user_and_their_items_as_texts() -> None:
    assert user_line('{"user": 7, "items": [1, "b", null, ""], "else": 1}', "") == UserLine(7, ["1", "b"], None)
    assert user_line('{"user": "é", "items": [], "candidates": ["c", 2]}', "").candidates == ["c", "2"]


@pytest.mark.parametrize(
    "line",
    [
        '{"user": "a", "items": "abc"}',  # three letters are no three items
        '{"user": "a", "items": {"b": 1}}', '{"user": "a", "items": [["b"]]}', '{"user": null, "items": []}', '{"user": ["a"], "items": []}',
        '{"items": []}', '{"user": "a"}', '["a"]', "7", "{", '{"user": "a", "items": [], "candidates": "bc"}', '{"user": "a", "items": null}',
    ],
)  # fmt: skip
def test_anything_else_is_one_line_that_names_the_place(line: str) -> None:
    with pytest.raises(ValueError, match=r'^users.jsonl:3: a line must be {"user": …, "items": \[ID, …\]}, got '):
        user_line(line, "users.jsonl:3")
