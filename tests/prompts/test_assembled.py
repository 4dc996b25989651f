"""Prompts that are put together are those that are rendered, on every row, wording and tokenizer."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, trainers
from transformers import AddedToken, PreTrainedTokenizerFast

from rectune.log.split import Histories
from rectune.prompts.assembled import RENDERED
from rectune.prompts.encoder import Encoder
from rectune.prompts.stretches import Stretches
from rectune.prompts.template import Template, codes_value, load_template
from rectune.tasks.examples import Example, Mixture, RowPrompts, TaskSpec, fit, fit_prompt
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


TITLES = (
    "Small blue kettle", "Lamp", "The Salt Orchard (1995)", "7", "Vase, tall; red", "naïve café", "Moth's", "¿Qué? 42", "“Quoted”", "user model", "x - y",
    "<think>", "[INST] & <b>", "Ünïted’s", "中文 标题", "a" * 120, "Item: next", "3 in 1 (24-pack)", "Salt & Pepper.", "It's 12345 67890",
)  # fmt: skip
ODD = ("", " led by a blank", "ends with one ", "▁", "\n", "a\u00a0")  # what stands beside them may change


@dataclass
class Shown:
    """Views of items whose names are codes, or, with `names`, texts."""

    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(CODES)

    def __call__(self, item: int) -> dict[str, str]:
        name = (
            self.names[item % len(self.names)] if self.names else codes_value([int(c) for c in CODES[item] if c >= 0])
        )
        return {"title": TITLES[item % len(TITLES)], "brand": f"Brand {item % 7}", "name": name}

    def same_as(self, other: Any) -> bool:
        return self is other


CODED = Shown()


def rows_of(count: int, *, views: Shown = CODED, known: bool = True, seed: int = 0, users: bool = False) -> TaskRows:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LONGEST + 1, count)
    items, ends = rng.integers(0, len(CODES), lengths.sum()).astype(np.int32), np.cumsum(lengths)
    histories = Histories(items, ends - lengths, ends)
    targets = rng.integers(0, len(CODES), count)
    tokens = np.where(rng.random(count) < 0.3, -1, rng.integers(len(VOCABULARY) - 9, len(VOCABULARY), count))

    def variables(i: int) -> dict[str, Any]:
        return {
            "history": [views(int(item)) for item in histories(i)],
            "target": views(int(targets[i])),
            "user": codes_value([int(tokens[i])]) if users and tokens[i] >= 0 else "",
        }

    return TaskRows(
        np.arange(count),
        variables,
        "item",
        targets,
        history=histories,
        views=views if known else None,
        users=tokens if users else None,
    )  # type: ignore[arg-type]


def rendered(encoder: Encoder, template: Template, rows: TaskRows, wording: int) -> list[Example]:
    return [fit(encoder, template, wording, rows.variables(i), max_length=None, what="") for i in range(len(rows))]


def used(made: RowPrompts, rows: TaskRows) -> tuple[int, int]:
    """How many wordings and lengths are put together, and how many are rendered."""
    assembly = made._of(rows)
    assert assembly is not None
    return int((assembly._pattern > 0).sum()), int((assembly._pattern == RENDERED).sum())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "name", ["next-item.jinja", "next-item-names.jinja", "next-item-list.jinja", "next-item-from-titles.jinja"]
)
@pytest.mark.parametrize("views", [CODED, Shown(TITLES), Shown(TITLES + ODD)], ids=["codes", "titles", "odd titles"])
def test_examples_are_those_that_are_rendered(family: str, name: str, views: Shown) -> None:
    encoder, template = encoder_of(family), load_template(ROOT / "templates" / name)
    made, rows = RowPrompts(encoder, template), rows_of(120, views=views)
    for wording in range(template.wordings):
        some = rows if wording == 0 else rows.take(np.arange(0, len(rows), 3))
        if (views.names and name == "next-item-names.jinja") or (views is not CODED and ODD[0] in views.names):
            some = some.take(np.array([i for i in range(len(some)) if _writable(some.variables(i))]))
        wordings = np.full(len(some), wording)
        for _ in range(2):  # as the patterns are learnt, and as they are known
            assert made.examples(some, wordings, max_length=None) == rendered(encoder, template, some, wording)
    together, alone = used(made, rows)
    if views.names and name == "next-item-names.jinja":
        assert together <= 1  # nothing stands between two names at which to cut
    else:
        assert not alone
        assert together >= (LONGEST if ODD[0] not in views.names else 3)  # undecided while every row has an odd one


def _writable(variables: dict[str, Any]) -> bool:
    """Whether the names of the target and of the last item are more than blanks: others cannot be completions, and may be whole prompts."""
    return all(bool(item["name"].strip()) for item in [variables["target"], *variables["history"][-1:]])


@pytest.mark.parametrize("views", [CODED, Shown(TITLES)], ids=["codes", "titles"])
def test_prompts_that_are_too_long_lose_as_many_entries(views: Shown) -> None:
    encoder, template = encoder_of("byte-level BPE, Qwen"), load_template(ROOT / "templates" / "next-item.jinja")
    made, rows = RowPrompts(encoder, template), rows_of(200, views=views)
    for most in (24, 60, 61, 90):
        fits = []
        for i in range(len(rows)):
            try:
                fits.append(fit_prompt(encoder, template, 2, rows.variables(i), room=most, what=f"row {i}"))
            except ValueError as error:
                with pytest.raises(ValueError, match=re.escape(str(error))):
                    made.prompts(rows.take(np.array([i])), np.array([2]), room=np.array([most]))
                fits.append(([], -1))
        kept = np.array([i for i, (_, dropped) in enumerate(fits) if dropped >= 0], dtype=int)
        prompts, dropped = made.prompts(rows.take(kept), np.full(len(kept), 2), room=np.full(len(kept), most))
        assert list(zip(prompts.lists(), dropped.tolist(), strict=True)) == [fits[i] for i in kept]
        assert most == 24 or (dropped > 0).any()


BODY = "{%% set wordings = 1 %%}\n{%% macro prompt(wording, history) %%}%s{%% endmacro %%}\n{%% macro completion(wording, target) %%}{{ target.name }}{%% endmacro %%}\n"


@pytest.mark.parametrize(
    ("body", "together"),
    [
        ("{% for item in history %}{{ loop.index }}. {{ item.name }}\n{% endfor %}{{ history|length }} so far", True),
        ("{% for item in history|reverse %}{{ item.name }}, again {{ item.name }}; {% endfor %}next", True),
        ("{% for item in history %}{% if loop.last %}and {% endif %}{{ item.name }} {% endfor %}", True),
        ("{% for item in history %}{{ item.name }} {{ item.title }} {% endfor %}next", True),
        ("{{ history|map(attribute='title')|join(', ') }}. What is next?", True),
        ("{% for item in history %}{{ item['title'] ~ ' by ' ~ item.brand }}; {% endfor %}next", True),
        ("{% macro one(thing) %}{{ thing.title }} from {{ thing.brand }}{% endmacro %}So far: {% for item in history %}{{ one(item) }}, {% endfor %}next", True),
        ("{% for item in history %}{{ item.name if item.title else '' }} {% endfor %}next", False),
        ("{% for item in history %}{% if loop.previtem is not defined or loop.previtem.name != item.name %}{{ item.name }} {% endif %}{% endfor %}next", False),
        ("{% for item in history %}{% if item in history[:1] %}first {% endif %}{{ item.name }} {% endfor %}next", False),
        ("{% for item in history %}{{ item.name|length }} {% endfor %}next", False),  # what a name is, not what it is called
        ("{% for item in history %}{{ item.title|upper }}, {% endfor %}next", False),
        ("{% for item in history %}{% set t = item.title %}{{ t[:9] }}, {% endfor %}next", False),
        ("{% for item in history %}{% if 'Lamp' in item.title %}a {% endif %}{{ item.title }}, {% endfor %}next", False),
        ("{% for item in history %}{% if item.get('title') == 'Lamp' %}a {% endif %}{{ item.name }}, {% endfor %}next", False),
        ("{% for item in history|selectattr('title', 'equalto', 'Lamp') %}{{ item.name }}, {% endfor %}next", False),
        ("{% for item in history %}{% for key in ['title'] %}{% if item[key] == 'Lamp' %}a {% endif %}{% endfor %}{{ item.name }} {% endfor %}next", False),
        # a text is asked about after it was made by a filter, `~`, a macro, a block or a format
        ("{% if 'Lamp' in history|join(' ', attribute='title') %}a {% endif %}{% for item in history %}{{ item.name }}, {% endfor %}next", False),
        ("{% for item in history %}{% if 'Lamp' in item ~ '' %}a {% endif %}{{ item.name }}, {% endfor %}next", False),
        ("{% macro one(item) %}{{ item.title }}{% endmacro %}{% for item in history %}{% if one(item) == 'Lamp' %}a {% endif %}{{ item.name }}, {% endfor %}next", False),
        ("{% for item in history %}{% set t %}{{ item.title }}{% endset %}{% if t == 'Lamp' %}a {% endif %}{{ item.name }}, {% endfor %}next", False),
        ("{% for item in history %}{% if 'Lamp' in '%s' % item %}a {% endif %}{{ item.name }}, {% endfor %}next", False),
        ("{% for item in history %}{% if loop.index % 2 %}a {% endif %}{{ item.name }}, {% endfor %}next", True),
        ("{% filter upper %}{% for item in history %}{{ item.title }}, {% endfor %}{% endfilter %}next", False),
        ("{% for item in history %}{{ item.brand }}-{{ item.title }}, {% endfor %}next", False),  # nothing between them to cut at
    ],
)  # fmt: skip
@pytest.mark.parametrize("views", [CODED, Shown(TITLES)], ids=["codes", "titles"])
def test_a_template_that_does_more_than_print_is_rendered(
    body: str, together: bool, views: Shown, tmp_path: Path
) -> None:
    (tmp_path / "own.jinja").write_text(BODY % body)
    encoder, template = encoder_of("byte-level BPE, Qwen"), load_template(tmp_path / "own.jinja")
    rows = rows_of(300, seed=1, views=views).take(np.arange(1, 300))
    made = RowPrompts(encoder, template)
    assert made.examples(rows, np.zeros(len(rows), dtype=int), max_length=None) == rendered(encoder, template, rows, 0)
    there, not_there = used(made, rows)
    assert (there == LONGEST and not not_there) if together else (there <= 1 and not_there >= LONGEST - 1)


@pytest.mark.parametrize(
    ("body", "together"),
    [
        ("{{ user }}{% for item in history %}{{ item.name }}{% endfor %}", True),
        (
            "{% if user %}Customer {{ user }}{% else %}Somebody{% endif %} has {% for item in history %}{{ item.name }}, {% endfor %}next",
            True,
        ),
        (
            "{% if not user %}Somebody {% endif %}{% for item in history %}{{ item.name }}, {% endfor %}{{ user }}",
            False,
        ),
        ("{% if user|length > 4 %}{{ user }}{% endif %}{% for item in history %}{{ item.name }}, {% endfor %}", False),
    ],
)
@pytest.mark.parametrize("views", [CODED, Shown(TITLES)], ids=["codes", "titles"])
def test_tokens_of_users_are_put_in(body: str, together: bool, views: Shown, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(BODY.replace("(wording, history)", "(wording, history, user)") % body)
    encoder, template = encoder_of("byte-level BPE, Qwen"), load_template(tmp_path / "own.jinja")
    rows = rows_of(300, views=views, users=True)
    made = RowPrompts(encoder, template)
    for _ in range(2):
        assert made.examples(rows, np.zeros(300, dtype=int), max_length=None) == rendered(encoder, template, rows, 0)
    there, not_there = used(made, rows)
    between = views is CODED or "{{ item.name }}{% e" not in body  # titles with nothing between them
    assert (there == 2 * LONGEST and not not_there) if together and between else there <= 4


def test_rows_of_other_tasks_are_rendered() -> None:
    encoder, template = encoder_of("byte-level BPE, Qwen"), load_template(ROOT / "templates" / "next-item.jinja")
    made, rows = RowPrompts(encoder, template), rows_of(20, known=False)
    assert made.examples(rows, np.full(20, 2), max_length=None) == rendered(encoder, template, rows, 2)
    assert made._of(rows) is None


def test_a_history_longer_than_there_are_codes_is_rendered() -> None:
    encoder, template = encoder_of("byte-level BPE, Qwen"), load_template(ROOT / "templates" / "next-item-names.jinja")
    made, length = RowPrompts(encoder, template), len(VOCABULARY)
    history = np.arange(length, dtype=np.int32)
    rows = replace(
        rows_of(1), history=Histories(history, np.array([0]), np.array([length])), target=np.zeros(1, dtype=int)
    )
    rows = replace(rows, variables=lambda i: {"history": [CODED(int(item)) for item in history], "target": CODED(0)})
    assert made.examples(rows, np.zeros(1, dtype=int), max_length=None) == rendered(encoder, template, rows, 0)
    assert used(made, rows) == (0, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_token_reaches_over_a_blank(family: str) -> None:
    """Of texts that nobody tried: what stands before a blank and what begins with it are encoded apart."""
    stretches, rng = Stretches(encoder_of(family)), np.random.default_rng(0)
    assert stretches.apart
    signs = [chr(code) for code in [*range(33, 127), *range(0xA1, 0x180), *range(0x370, 0x400), 0x4E2D, 0x1F600, 0x301]]
    for _ in range(300):
        left, right = ("".join(rng.choice(signs, rng.integers(1, 6))) for _ in range(2))
        whole = encoder_ids(stretches, f"{left} {right}", before=False, after=False)
        assert whole == encoder_ids(stretches, left, before=False, after=True) + encoder_ids(
            stretches, f" {right}", before=True, after=False
        )


def encoder_ids(stretches: Stretches, text: str, *, before: bool, after: bool) -> list[int]:
    ids = stretches.ids(text, first=False, cut_before=before, cut_after=after)
    assert ids is not None
    return ids


def test_a_tokenizer_with_tokens_that_reach_over_blanks_is_given_whole_texts() -> None:
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.normalizer = normalizers.Replace(" ", "▁")  # words are not cut apart, so merges go over them
    raw.train_from_iterator(
        ["salt and pepper, salt and vinegar, salt and lime"] * 9,
        trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "</s>"], show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="</s>")
    assert any("d▁" in piece for piece in raw.get_vocab())
    encoder, template = Encoder(tokenizer, (), form="plain"), load_template(ROOT / "templates" / "next-item-list.jinja")
    assert not Stretches(encoder).apart
    made, rows = RowPrompts(encoder, template), rows_of(60, views=Shown(("salt", "salt and", "pepper")))
    assert made.examples(rows, np.zeros(60, dtype=int), max_length=None) == rendered(encoder, template, rows, 0)
    assert used(made, rows)[0] <= 1


@pytest.mark.parametrize("views", [CODED, Shown(TITLES)], ids=["codes", "titles"])
def test_a_mixture_takes_the_short_way(views: Shown) -> None:
    encoder, template, rows = (
        encoder_of("byte-level BPE, Qwen"),
        load_template(ROOT / "templates" / "next-item.jinja"),
        rows_of(400, views=views),
    )
    asked = 0

    def counted(i: int) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return rows.variables(i)

    spec = TaskSpec("next_item", lambda part: replace(rows, variables=counted), template)
    mixture = Mixture([spec], "train", encoder, seed=0, max_length=None, loss_on_all=False)
    examples = [example for epoch in range(3) for example in mixture.examples(range(400), epoch)]
    assert len(examples) == 1200
    assert asked <= template.wordings * (LONGEST + 1)  # once for a wording and length
    asked = 0
    assert mixture.lengths(0).tolist() == [len(e.prompt) + len(e.completion) for e in examples[:400]]
    assert asked == 0
