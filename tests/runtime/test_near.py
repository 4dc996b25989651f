"""Names and values in messages stay short."""

from __future__ import annotations

from rectune.runtime.near import near, shown


def test_few_names_are_listed_and_of_many_the_nearest_five() -> None:
    assert near("hidden_sise", ["hidden_size", "vocab"]) == " Did you mean `hidden_size`?"
    assert near("zzz", ["b", "a"]) == " Known: a, b."
    assert near("zzz", []) == ""
    told = near("q77", [f"name{i}" for i in range(800)])
    assert told.startswith(" Known: name77, ")
    assert told.endswith(" and 795 others.")
    assert told.count(",") == 4


def test_a_long_value_is_shown_by_its_ends() -> None:
    assert shown("abc") == "'abc'"
    assert len(shown("x" * 3000)) < 81
    assert shown([1] * 100).startswith("[1, 1,")
    assert "…" in shown([1] * 100)
