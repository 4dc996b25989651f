"""Wordings: the ways in which a template says its task really differ."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest

from rectune.prompts.template import Template, load_template
from rectune.recipe.load import bundled

FILES = sorted(bundled("templates")[0].glob("*.jinja"))
SEVERAL = [file for file in FILES if load_template(file).wordings > 1]
FAMILIES = {
    "next item": ["next-item"],
    "text to index": ["item-to-index"],
    "index to text": ["index-to-item"],
    "mixed": ["next-title", "next-description", "next-item-from-titles"],
    "search": ["item-search"],
    "preference": ["preference"],
}
Grams = set[tuple[str, ...]]


def variables(*, history: bool = True, columns: bool = True) -> dict[str, Any]:
    """What any bundled template may ask for; the texts have no letters, so that only the wording counts."""
    item = {"title": "1", "name": "2", "liked": True, "rating": "4"}
    item |= {"brand": "3", "categories": "4", "description": "5"} if columns else {}
    past = [item, {**item, "liked": False}] if history else []
    return {
        "history": past,
        "target": item,
        "candidates": [item, item],
        "item": item,
        "liked": True,
        "rating": "4",
        "lowest": "1",
        "highest": "5",
        "intention": "6",
        "preference": "7",
        "user": "8",
        "turns": [{"role": "user", "text": "9"}],
        "answer": "0",
    }


def grams(text: str) -> Grams:
    """The word 4-grams of a text; a shorter text is one gram."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 4]) for i in range(max(len(words) - 3, 1))}


def shared(one: Grams, other: Grams) -> float:
    """Overlap coefficient |A ∩ B| / min(|A|, |B|)."""
    return len(one & other) / min(len(one), len(other))


def wording_grams(template: Template, given: dict[str, Any]) -> list[Grams]:
    """The grams of each wording's markup, variables taken out."""
    prompts = [template.prompt(w, given) for w in range(template.wordings)]
    return [grams(" ".join(s.text for s in prompt if s.kind == "markup")) for prompt in prompts]


def test_the_overlap_is_of_four_grams_and_of_the_smaller_set() -> None:
    assert grams("One two three four five") == {("one", "two", "three", "four"), ("two", "three", "four", "five")}
    assert grams("Item: Title:") == {("item", "title")}
    assert shared(grams("one two three four five"), grams("zero one two three four")) == 0.5
    assert shared(grams("a b c d"), grams("x a b c d y")) == 1.0


@pytest.mark.parametrize("columns", [True, False], ids=["all columns", "only titles"])
@pytest.mark.parametrize("file", SEVERAL, ids=lambda file: file.stem)
def test_no_two_wordings_share_half_of_their_four_grams(file: Any, columns: bool) -> None:
    said = wording_grams(load_template(file), variables(columns=columns))
    close = {
        (i, j): shared(said[i], said[j])
        for i, j in combinations(range(len(said)), 2)
        if shared(said[i], said[j]) >= 0.5
    }
    assert close == {}


def test_search_wordings_differ_without_a_history_too() -> None:
    (file,) = (file for file in FILES if file.stem == "item-search")
    said = wording_grams(load_template(file), variables(history=False))
    assert max(shared(one, other) for one, other in combinations(said, 2)) < 0.5


def test_wordings_of_the_mixed_templates_differ_across_the_three_too() -> None:
    said = [wording_grams(load_template(f), variables()) for f in FILES if f.stem in FAMILIES["mixed"]]
    assert max(shared(a, b) for one, other in combinations(said, 2) for a in one for b in other) < 0.5


def test_every_family_has_ten_wordings_and_all_have_sixty() -> None:
    counts = {file.stem: load_template(file).wordings for file in FILES}
    families = {name: [counts[template] for template in members] for name, members in FAMILIES.items()}
    assert min(count for members in families.values() for count in members) >= 10
    assert sum(sum(members) for members in families.values()) >= 60


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("history", [True, False], ids=["history", "no history"])
@pytest.mark.parametrize("columns", [True, False], ids=["all columns", "only titles"])
def test_every_wording_renders_without_the_columns_that_are_optional(file: Any, history: bool, columns: bool) -> None:
    template = load_template(file)
    given = variables(history=history, columns=columns)
    if template.name == "next-description.jinja" and not columns:
        given["target"] = variables()["target"]  # the task leaves out rows without a description
    for wording in range(template.wordings):
        assert "".join(s.text for s in template.completion(wording, given)).strip()
        prompt = "".join(s.text for s in template.prompt(wording, given))
        assert prompt.strip() or template.name == "next-item-names.jinja"
        assert "\n\n" not in prompt


@pytest.mark.parametrize("name", ["item-to-index", "write-intention"])
def test_a_description_is_printed_where_there_is_one(name: str) -> None:
    (file,) = (file for file in FILES if file.stem == name)
    template = load_template(file)
    prompts = ["".join(s.text for s in template.prompt(w, variables())) for w in range(template.wordings)]
    assert any("5" in prompt for prompt in prompts)
