"""Warnings are one line each; one that only its numbers tell apart is printed once a command."""

from __future__ import annotations

from rectune.runtime.told import ToldOnce, one_line_each


def test_a_warning_of_other_numbers_is_told_once_where_it_asks_for_that() -> None:
    formatted = one_line_each()
    assert formatted("looks back 16 of 34", ToldOnce, "f.py", 1) == "warning: looks back 16 of 34\n"
    assert formatted("looks back 8 of 1,034", ToldOnce, "f.py", 9) == ""
    assert formatted("other words of 34", ToldOnce) != ""
    assert one_line_each()("looks back 16 of 34", ToldOnce) != ""  # another command


def test_other_warnings_are_all_told() -> None:
    formatted = one_line_each()
    assert formatted("3 rows", UserWarning) == formatted("3 rows", UserWarning) == "warning: 3 rows\n"
