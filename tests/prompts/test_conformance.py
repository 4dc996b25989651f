"""Prompt and completion, encoded apart, are what the tokenizer makes of the whole text at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from transformers import AddedToken

from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Segment
from tests.prompts.families import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "tokenizers.md"
VOCABULARY = ("<a_0>", "<a_1>", "<b_0>")
FORMS = [
    (name, form)
    for name, make in FAMILIES.items()
    for form in ("plain", "chat")
    if form == "plain" or make().chat_template
]

PROMPTS: dict[str, list[Segment]] = {
    "text": [Segment("markup", "Items so far: red lamp. Which comes next?")],
    "text that ends with a colon": [Segment("markup", "A reader liked "), Segment("data", "Moth (1995)"), Segment("markup", ":\n")],
    "lines": [Segment("data", "red  lamp\n\ntall vase"), Segment("markup", "\nNext item:")],
    "a blank at its beginning": [Segment("markup", " Yes or No?")],
    "letters that it never saw": [Segment("data", "红色茶壶 🙂 naïve"), Segment("markup", ". Which comes next?")],
    "names": [Segment("codes", "0 2"), Segment("markup", ", "), Segment("codes", "1 2"), Segment("markup", ". Which comes next?")],
    "names within text": [Segment("markup", "Liked:\n"), Segment("codes", "0 2"), Segment("markup", "\n and "), Segment("codes", "1 2"), Segment("markup", " so far:")],
}  # fmt: skip
COMPLETIONS: dict[str, list[Segment]] = {
    "Yes": [Segment("markup", "Yes")],
    "No": [Segment("markup", " No\n")],
    "a title": [Segment("data", "The Salt Orchard (2)")],
    "two lines": [Segment("data", "tall vase\nred lamp")],
    "a number": [Segment("data", "4.5")],
    "letters that it never saw": [Segment("data", "红色 café")],
    "a name": [Segment("codes", "0 2")],
    "a name and a title": [Segment("codes", "0 2"), Segment("data", " red lamp")],
    "a title and a name": [Segment("data", "red lamp "), Segment("codes", "0 2")],
}


@cache
def encoder(name: str, form: str) -> Encoder:
    tokenizer = FAMILIES[name]()
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in VOCABULARY])
    return Encoder(tokenizer, VOCABULARY, form=form)  # type: ignore[arg-type]


def spelt(segments: list[Segment]) -> str:
    codes = lambda text: "".join(VOCABULARY[int(code)] for code in text.split())  # noqa: E731
    return "".join(codes(text) if kind == "codes" else text for kind, text in segments)


def whole_ids(made: Encoder, prompt: str, completion: list[Segment]) -> list[int]:
    """What the tokenizer itself makes of prompt and completion in one text."""
    tokenizer, frame, said = made.tokenizer, made.frame, spelt(completion).strip()
    lead = frame.lead if completion[0].kind != "codes" else ""
    text = frame.before * (made.form == "chat") + prompt.rstrip() + frame.between + lead + said
    ids = list(tokenizer(text, add_special_tokens=made.form == "plain")["input_ids"])
    return ids if ids[-1] == made.end_id else [*ids, made.end_id]


def pairs() -> Iterator[tuple[str, str]]:
    yield from ((prompt, completion) for prompt in PROMPTS for completion in COMPLETIONS)


def apart(made: Encoder, prompt: str, completion: str) -> list[int]:
    return made.prompt_ids(PROMPTS[prompt]) + made.completion_ids(COMPLETIONS[completion])


def begins(made: Encoder) -> str:
    """The first token of a completion `Yes`, as the vocabulary spells it."""
    return str(made.tokenizer.convert_ids_to_tokens(made.completion_ids(COMPLETIONS["Yes"])[:1])[0])


def page() -> str:
    """The page that `docs/tokenizers.md` is: one row a family and form."""
    rows = []
    for name, form in FORMS:
        made = encoder(name, form)
        same = [
            apart(made, *pair) == whole_ids(made, spelt(PROMPTS[pair[0]]), COMPLETIONS[pair[1]]) for pair in pairs()
        ]
        known = "all" if not made.unknown_characters("红茶 🙂") else "no: they become its unknown token"
        rows.append(f"| {name} | {form} | {sum(same)} of {len(same)} | `{begins(made)}` | {known} |")
    return HEAD.format(prompts=len(PROMPTS), completions=len(COMPLETIONS)) + "\n".join(rows) + "\n"


HEAD = """# Tokenizers

Prompt and completion are encoded apart, so that training and ranking read the same ids, and what they are together is held against what
the tokenizer itself makes of the whole text at once. This page is made by `tests/prompts/test_conformance.py`, which fails where it is not
up to date; `RECTUNE_WRITE_PAGES=1` writes it anew. The tokenizers are small ones, built like those of the families; pairs are
{prompts} prompts (lines, colons, names of new tokens, letters that were never seen) by {completions} completions.

- *equal*: pairs whose ids are those of the whole text.
- *begins with*: the first token of the answer `Yes`; an answer that began with a bare blank could not be told from another by it.
- *every character*: whether any text can be encoded. Where not, the unknown token is kept, and a warning gives the share of such characters.

Item texts are only ever characters: no special token or name comes out of one, however it is spelt. A run of white space that a
tokenizer holds as one token (Gemma's) may. A prompt is taken to end with text: after one that ends with a name, the form of Llama 2
would put a second blank before a completion in words.

What the model will read and write is shown with what stands around every prompt, and with a block of reasoning where the chat template
leaves one open (it is closed, empty):

```sh run
rectune preview quickstart --examples 1
```

| family | form | equal | begins with | every character |
|---|---|---|---|---|
"""


def test_the_page_says_what_was_found() -> None:
    if os.environ.get("RECTUNE_WRITE_PAGES"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_prompt_and_completion_are_the_whole_text(name: str, form: str) -> None:
    made = encoder(name, form)
    for prompt, completion in pairs():
        whole = whole_ids(made, spelt(PROMPTS[prompt]), COMPLETIONS[completion])
        assert apart(made, prompt, completion) == whole, (prompt, completion)


@pytest.mark.parametrize("name", [name for name, form in FORMS if form == "chat"])
def test_a_chat_is_what_the_template_itself_gives(name: str) -> None:
    made = encoder(name, "chat")
    for prompt in ("Which comes next?", "red  lamp\n\ntall vase"):
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "Yes, The Salt Orchard"}]
        whole = made.tokenizer.apply_chat_template(turns, tokenize=True)["input_ids"]
        ours = made.prompt_ids([Segment("data", prompt)])
        ours += made.completion_ids([Segment("data", "Yes, The Salt Orchard")], end=False)
        assert whole[: len(ours)] == ours
        assert made.end_id in whole[len(ours) : len(ours) + 2]  # Llama 2 has a blank before its end


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_yes_and_no_differ_in_their_first_token(name: str, form: str) -> None:
    made = encoder(name, form)
    yes, no = (made.completion_ids(COMPLETIONS[word], end=False)[0] for word in ("Yes", "No"))
    bare = made.tokenizer.convert_tokens_to_ids("▁")
    assert (yes != no) or (yes == bare and "Unigram" in name)  # a vocabulary too small to hold `▁No`
