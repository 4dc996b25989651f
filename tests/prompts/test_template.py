"""Templates: segments, and item texts that look like markup."""

from __future__ import annotations

import time
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


HOSTILE = {
    "a range beyond the sandbox": "{% for i in range(10 ** 9) %}x{% endfor %}",
    "a range of a huge number": "{{ range(10 ** 30) | join }}",
    "a repeated text": "{{ 'x' * 10 ** 10 }}",
    "a repeated list": "{{ ([0] * 10 ** 10) | length }}",
    "a repetition turned round": "{{ 10 ** 10 * 'x' }}",
    "a huge power": "{{ 9 ** (9 ** 9) }}",
    "a width": "{{ 'x'.center(10 ** 10) }}",
    "a width of a filter": "{{ 'x' | center(10 ** 10) }}",
    "an indent": "{{ 'x' | indent(10 ** 10, first=true) }}",
    "a width in %": "{{ '%9999999999d' % 1 }}",
    "a width beside %": "{{ '%*d' % (10 ** 10, 1) }}",
    "a width in a format": "{{ '{:>9999999999}'.format(1) }}",
    "a format filter": "{{ '%9999999999d' | format(1) }}",
    "a text that doubles": "{% set n = namespace(t='xx') %}{% for i in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}",
    "a text that doubles by +": "{% set n = namespace(t='xx') %}{% for i in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}{{ n.t }}",
    "replacements": "{{ ('x' * 10 ** 6) | replace('x', 'y' * 10 ** 6) }}",
    "a separator": "{{ range(90000) | join('y' * 10 ** 6) }}",
    "loops in loops": "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
    "much text": "{% for i in range(5000) %}{{ 'x' * 10 ** 6 }}{% endfor %}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a division by zero": "{{ 1 / 0 }}",
    "an integer that is none": "{{ 'x' | round }}",
    "a long integer": "{{ ((10 ** 2000) * (10 ** 2000) * (10 ** 2000)) }}",
    "a file": "{% include 'other.jinja' %}",
    "a wrong index": "{{ 'abc'.index('z') }}",
    "many columns": "{{ 'x' | slice(10 ** 9) | list | length }}",
    "lorem ipsum": "{{ lipsum(10 ** 9) }}",
    "a filter that is not there": "{{ x | upperr }}",
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_whatever_a_template_does_wrong_is_one_line_with_its_name(tmp_path: Path, what: str) -> None:
    began = time.monotonic()
    for wrong in (HOSTILE[what], "{% set y %}" + HOSTILE[what] + "{% endset %}{{ y }}"):
        with pytest.raises(ValueError, match=r"^t\.jinja[:,]") as refused:
            template(tmp_path, wrong).prompt(0, {"x": "tea"})
        assert len(str(refused.value)) < 400
        assert "\n" not in str(refused.value)
    (tmp_path / "t.jinja").write_text("{% set wordings = 1 %}" + HOSTILE[what].replace("{{ x |", "{{ 'tea' |"))
    with pytest.raises(ValueError, match=r"^t\.jinja[:,]"):
        load_template(tmp_path / "t.jinja")
    assert time.monotonic() - began < 5


def test_a_template_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_bytes("Café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"t.jinja:1: not utf-8 text"):
        load_template(tmp_path / "t.jinja")


def test_what_ordinary_templates_do_is_not_refused(tmp_path: Path) -> None:
    made = template(
        tmp_path,
        "{% for i in range(3) %}{{ loop.index }}/{{ loop.length }}{{ x | replace('a', 'o') }}{{ '%03d' % i }}{{ ' ' * 2 }}{% endfor %}"
        "{{ [x, x] | join(', ') }}{{ x ~ 1 }}{{ '{:>4}'.format(x) }}{% for c in x | list | reverse %}{{ c }}{% endfor %}{{ 1700000000000 }}",
    )
    for _ in range(2):
        text = "".join(s.text for s in made.prompt(0, {"x": "tea"}))
        assert text == "1/3teo000  2/3teo001  3/3teo002  tea, teatea1 teaaet1700000000000"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("x | map(attribute='title') | join(', ')", "a, b"),
        ("x | map('length') | list", "[2, 2]"),
        ("x | selectattr('title', 'equalto', 'b') | map(attribute='n') | first", "2"),
        ("x | rejectattr('title', 'equalto', 'b') | list | length", "1"),
        ("[1, 2, 3] | select('odd') | list", "[1, 3]"),
        ("[1, 2, 3] | reject('odd') | list", "[2]"),
        ("x | random | length", "2"),
    ],
)
def test_filters_that_are_given_the_context_work(tmp_path: Path, said: str, expected: str) -> None:
    made = template(tmp_path, f"{{{{ {said} }}}}")
    items = [{"title": "a", "n": 1}, {"title": "b", "n": 2}]
    assert "".join(s.text for s in made.prompt(0, {"x": items})) == expected


def test_rendering_many_rows_is_no_long_rendering(tmp_path: Path) -> None:
    made = template(tmp_path, "{% for i in x %}{{ i }}{% endfor %}")
    for _ in range(8):  # 400,000 turns in all
        assert made.prompt(0, {"x": list(range(50_000))})
