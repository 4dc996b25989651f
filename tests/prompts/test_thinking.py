"""A prompt never ends inside an open block of reasoning."""

from __future__ import annotations

from typing import Any

import pytest

from rectune.prompts.encoder import Encoder, Frame
from rectune.prompts.template import Segment
from rectune.prompts.thinking import close_thinking
from tests.prompts.families import CHATML, qwen


def chat(asks: str, *, answers: str = "") -> Any:
    """A tokenizer whose template prints `asks` where it asks for an answer, and `answers` before one that was given."""
    tokenizer = qwen()
    tokenizer.chat_template = CHATML.replace("assistant\n{% endif", f"assistant\n{asks}{{% endif").replace(
        "{{ m.role }}\n", "{{ m.role }}\n{% if m.role == 'assistant' %}" + answers + "{% endif %}"
    )
    return tokenizer


@pytest.mark.parametrize(
    ("opened", "whole"),
    [
        ("<think>\n", "<think>\n\n</think>\n\n"),
        ("<think>", "<think>\n\n</think>\n\n"),
        ("<think>\n\n", "<think>\n\n</think>\n\n"),
        ("<seed:think>", "<seed:think>\n\n</seed:think>\n\n"),
        ("<reasoning>\n", "<reasoning>\n\n</reasoning>\n\n"),
        ("[THINK]", "[THINK]\n\n[/THINK]\n\n"),
        ("<|begin_of_thought|>\n", "<|begin_of_thought|>\n\n<|end_of_thought|>\n\n"),
        ("<|START_THINKING|>", "<|START_THINKING|>\n\n<|END_THINKING|>\n\n"),
    ],
)
def test_an_open_block_is_closed_empty(opened: str, whole: str) -> None:
    assert close_thinking(f"assistant\n{opened}") == (f"assistant\n{whole}", whole.removeprefix(opened))
    assert close_thinking(f"assistant\n{whole}") == (f"assistant\n{whole}", "")
    encoder = Encoder(chat(opened), ())
    assert encoder.frame.between.endswith(f"<|im_start|>assistant\n{whole}")
    assert encoder.frame.closed == whole.removeprefix(opened)


@pytest.mark.parametrize(
    "plain", ["", "<start_of_turn>model\n", "<b>", "[INST]", "<|im_start|>assistant\n", "<answer>"]
)
def test_what_is_no_reasoning_is_left_as_it_is(plain: str) -> None:
    assert close_thinking(plain) == (plain, "")


@pytest.mark.parametrize("opened", ["<|think|>", "<think>\nLet me see. "])
def test_a_block_that_cannot_be_closed_is_refused(opened: str) -> None:
    with pytest.raises(ValueError, match=r"ends a prompt inside an open `<.*think.*>` block.*prompt_form: plain"):
        Encoder(chat(opened), ())
    assert Encoder(chat(opened), (), form="plain").frame.closed == ""


def test_the_block_is_written_as_the_template_itself_writes_it() -> None:
    encoder = Encoder(chat("<think>\n", answers="<think>\n</think>\n"), ())
    assert encoder.frame.between.endswith("assistant\n<think>\n</think>\n")
    assert encoder.frame.closed == ""  # the template did


def test_the_answer_follows_the_closed_block_as_one_token(tmp_path: Any) -> None:
    encoder = Encoder(chat("<think>\n"), ())
    encoder.frame.save(tmp_path)
    for made in (encoder, Encoder(encoder.tokenizer, (), frame=Frame.load(tmp_path))):
        names = made.tokenizer.convert_ids_to_tokens(made.prompt_ids([Segment("markup", "Next?")]))
        after = names[names.index("<think>") :]
        assert [name for name in after if set(name) != {"Ċ"}] == ["<think>", "</think>"]
        assert made.frame.closed == "\n</think>\n\n"
