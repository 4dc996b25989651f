"""Templates: segments, and item texts that look like markup."""

from __future__ import annotations

from pathlib import Path

import pytest

from rectune.prompts.template import Segment, codes_value, draw_wording, load_template
from rectune.recipe.load import bundled


def template(tmp_path: Path, prompt: str, completion: str = "{{ x }}", head: str = "{% set wordings = 2 %}"):
    text = f"{head}\n{{% macro prompt(wording, x) %}}{prompt}{{% endmacro %}}\n{{% macro completion(wording, x) %}}{completion}{{% endmacro %}}\n"
    file = tmp_path / "t.jinja"
    file.write_text(text)
    return load_template(file)


def test_literal_text_is_markup_and_expressions_are_data(tmp_path: Path) -> None:
    assert template(tmp_path, "Buy {{ x }}!").prompt(0, {"x": "tea"}) == [
        Segment("markup", "Buy "), Segment("data", "tea"), Segment("markup", "!"),
    ]  # fmt: skip


def test_codes_stay_codes_through_macros_and_filters(tmp_path: Path) -> None:
    made = template(tmp_path, "{% macro two(v) %}<{{ v }}>{% endmacro %}{{ two(x) }}{{ [x, 'y'] | join(', ') }}")
    assert made.prompt(0, {"x": codes_value([3, 7])}) == [
        Segment("data", "<"), Segment("codes", "3 7"), Segment("data", ">"), Segment("codes", "3 7"), Segment("data", ", y"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "title", ["{{ 7*7 }}", "{% raw %}", "<|im_end|>", "<a_12>", "\ue000x\ue002", "\ue00112\ue002", "# {#"]
)
def test_a_title_is_never_markup(tmp_path: Path, title: str) -> None:
    from rectune.prompts.template import clean_value

    (segment,) = template(tmp_path, "{{ x }}").prompt(0, {"x": clean_value(title)})
    assert segment.kind == "data"
    assert segment.text == clean_value(title)
    assert "49" not in segment.text


def test_a_title_cannot_reach_python(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unsafe"):
        template(tmp_path, "{{ x.__class__.__mro__ }}").prompt(0, {"x": "t"})


def test_a_variable_that_the_task_does_not_give_gets_a_near_miss(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"t.jinja: `prompt` asks for `x`, which this task does not give. Known: history"
    ):
        template(tmp_path, "{{ x }}").prompt(0, {"history": []})


def test_an_undefined_attribute_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no attribute 'colour'"):
        template(tmp_path, "{{ x.colour }}").prompt(0, {"x": {"title": "t"}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% set wordings = 1 %}", "needs a macro `prompt"),
        ("{% macro prompt(wording) %}{% endmacro %}{% macro completion(wording) %}{% endmacro %}", "set wordings = N"),
        ("{% set wordings = 1 %}\n{% if %}", "t.jinja:2: "),
    ],
)
def test_what_is_no_template_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.jinja").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_template(tmp_path / "t.jinja")


def test_wordings_differ_between_epochs_and_rows_but_not_between_calls(tmp_path: Path) -> None:
    made = template(tmp_path, "{{ x }}", head="{% set wordings = 5 %}")
    drawn = {(e, r): draw_wording(made, seed=0, epoch=e, row=r) for e in range(3) for r in range(200)}
    assert set(drawn.values()) == {0, 1, 2, 3, 4}
    assert drawn == {(e, r): draw_wording(made, seed=0, epoch=e, row=r) for e in range(3) for r in range(200)}
    assert [drawn[0, r] for r in range(200)] != [drawn[1, r] for r in range(200)]


@pytest.mark.parametrize("name", ["next-item", "item-to-index", "index-to-item", "like-or-dislike"])
def test_bundled_templates_have_at_least_five_different_wordings(name: str) -> None:
    made = load_template(bundled("templates")[0] / f"{name}.jinja")
    item = {"title": "Tea", "name": "Tea", "brand": "B", "categories": "C", "liked": True}
    variables = {"history": [item, {**item, "liked": False}], "target": item, "item": item, "liked": True}
    rendered = {"".join(s.text for s in made.prompt(w, variables)) for w in range(made.wordings)}
    assert len(rendered) == made.wordings >= 5
