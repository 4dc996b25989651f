"""Prompts that are put together are those that are rendered, on every row, wording and tokenizer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AddedToken

from rectune.prompts.assembled import Assembly
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import codes_value, load_template
from rectune.tasks.examples import Mixture, RowPrompts, TaskSpec, fit, fit_prompt
from rectune.tasks.rows import TaskRows
from tests.prompts.families import FAMILIES
from tests.test_docs import ROOT

VOCABULARY = tuple(f"<{letter}_{n}>" for letter in "abcd" for n in range(10))
LONGEST = 12
# Names of two, three and four codes.
CODES = np.array(
    [[n // 10 % 10, 10 + n % 10, 20 + n % 7 if n % 3 else -1, 30 + n % 5 if n % 3 == 2 else -1] for n in range(90)]
)


def encoder_of(family: str, form: str = "plain") -> Encoder:
    tokenizer = FAMILIES[family]()
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in VOCABULARY])
    return Encoder(tokenizer, VOCABULARY, form=form)  # type: ignore[arg-type]


def view(item: int) -> dict[str, str]:
    return {"name": codes_value([int(c) for c in CODES[item] if c >= 0]), "title": f"Item {item}"}


def rows_of(count: int, *, names: bool = True, seed: int = 0) -> TaskRows:
    rng = np.random.default_rng(seed)
    histories = [rng.integers(0, len(CODES), rng.integers(1, LONGEST + 1)) for _ in range(count)]
    targets = rng.integers(0, len(CODES), count)

    def variables(i: int) -> dict[str, Any]:
        return {"history": [view(int(item)) for item in histories[i]], "target": view(int(targets[i])), "user": ""}

    return TaskRows(
        np.arange(count), variables, "item", targets, history=lambda i: histories[i], names=CODES if names else None
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["next-item.jinja", "next-item-names.jinja", "next-item-list.jinja"])
def test_examples_are_those_that_are_rendered(family: str, name: str) -> None:
    encoder, template, rows = encoder_of(family), load_template(ROOT / "templates" / name), rows_of(150)
    made = RowPrompts(encoder, template)
    for wording in range(template.wordings):
        for i in range(0, len(rows), 1 if wording == 0 else 7):
            for room in (None, 24):
                expected = (
                    fit(encoder, template, wording, rows.variables(i), max_length=room, what="")
                    if room is None
                    else None
                )
                if expected is not None:
                    assert made.example(rows, i, wording, max_length=None, what="") == expected
                    continue
                try:
                    cut = fit_prompt(encoder, template, wording, rows.variables(i), room=room, what="row")
                except ValueError as error:
                    with pytest.raises(ValueError, match=re.escape(str(error))):
                        made.prompt(rows, i, wording, room=room, what="row")
                    continue
                assert made.prompt(rows, i, wording, room=room, what="row") == cut
    assembly = made._of(rows)
    assert assembly is not None
    assert all(pieces is not None for pieces in assembly._completions.values())
    assert sum(pieces is not None for pieces in assembly._prompts.values()) == len(assembly._prompts) >= LONGEST


BODY = "{%% set wordings = 1 %%}\n{%% macro prompt(wording, history) %%}%s{%% endmacro %%}\n{%% macro completion(wording, target) %%}{{ target.name }}{%% endmacro %%}\n"


@pytest.mark.parametrize(
    ("body", "together"),
    [
        ("{% for item in history %}{{ loop.index }}. {{ item.name }}\n{% endfor %}{{ history|length }} so far", True),
        ("{% for item in history|reverse %}{{ item.name }}, again {{ item.name }}; {% endfor %}next", True),
        ("{% for item in history %}{% if loop.last %}and {% endif %}{{ item.name }} {% endfor %}", True),
        ("{% for item in history %}{{ item.name }} {{ item.title }} {% endfor %}next", False),  # more than names
        ("{% for item in history %}{{ item.name if item.title else '' }} {% endfor %}next", False),
        ("{% for item in history %}{% if loop.previtem is not defined or loop.previtem.name != item.name %}{{ item.name }} {% endif %}{% endfor %}next", False),
        ("{% for item in history %}{{ item.name|length }} {% endfor %}next", False),  # what a name is, not what it is called
    ],
)  # fmt: skip
def test_a_template_that_reads_more_than_names_is_rendered(body: str, together: bool, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(BODY % body)
    encoder, template, rows = (
        encoder_of("byte-level BPE, Qwen"),
        load_template(tmp_path / "own.jinja"),
        rows_of(300, seed=1),
    )
    made = RowPrompts(encoder, template)
    for i in range(len(rows)):
        assert made.example(rows, i, 0, max_length=None, what="") == fit(
            encoder, template, 0, rows.variables(i), max_length=None, what=""
        )
    assembly = made._of(rows)
    assert assembly is not None
    used = [pieces is not None for (_, length), pieces in assembly._prompts.items() if length > 1]
    assert all(used) if together else not any(used)


def test_rows_of_other_tasks_are_rendered() -> None:
    encoder, template = encoder_of("byte-level BPE, Qwen"), load_template(ROOT / "templates" / "next-item.jinja")
    made, rows = RowPrompts(encoder, template), rows_of(20, names=False)
    assert made.example(rows, 3, 2, max_length=None, what="") == fit(
        encoder, template, 2, rows.variables(3), max_length=None, what=""
    )
    assert made._of(rows) is None


def test_a_history_longer_than_there_are_codes_is_rendered() -> None:
    encoder, template = encoder_of("byte-level BPE, Qwen"), load_template(ROOT / "templates" / "next-item-names.jinja")
    assembly = Assembly(encoder, template, CODES)
    history = list(range(len(VOCABULARY)))
    ids = encoder.prompt_ids(template.prompt(0, {"history": [view(item) for item in history]}))
    for _ in range(2):
        assert assembly.prompt(0, history, lambda: ids) == ids


def test_a_mixture_takes_the_short_way() -> None:
    encoder, template, rows = (
        encoder_of("byte-level BPE, Qwen"),
        load_template(ROOT / "templates" / "next-item.jinja"),
        rows_of(400),
    )
    rendered = 0

    def counted(i: int) -> dict[str, Any]:
        nonlocal rendered
        rendered += 1
        return rows.variables(i)

    counting = TaskRows(rows.row, counted, "item", rows.target, history=rows.history, names=CODES)
    mixture = Mixture(
        [TaskSpec("next_item", lambda part: counting, template)],
        "train",
        encoder,
        seed=0,
        max_length=None,
        loss_on_all=False,
    )
    examples = [mixture.example(position, epoch) for epoch in range(3) for position in range(400)]
    assert len(examples) == 1200
    assert rendered <= 2 * template.wordings * (
        LONGEST + 1
    )  # once for a wording and length, and once for a wording's completion
