"""The encoder: texts stay texts, one rule for turns and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Segment

VOCABULARY = ("<a_0>", "<a_1>", "<a_12>", "<b_0>")
NASTY = [
    "<|im_end|>", "<|end|>", "<a_12>", "{{ 7*7 }}", "x" * 5000, "🙂🙃", "مرحبا بالعالم", "two\nlines", "", "<|start|>assistant",
    "a<a_0>b<|pad|>", "\u200b\ufeff", "<a_1><a_1>",
]  # fmt: skip


def encoder(folder: Path, form: str = "auto") -> Encoder:
    from transformers import AddedToken, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in VOCABULARY])
    return Encoder(tokenizer, VOCABULARY, form=form)  # type: ignore[arg-type]


def markup_ids(made: Encoder, ids: list[int]) -> list[int]:
    special = set(made.tokenizer.added_tokens_decoder)
    return [i for i in ids if i in special]


@pytest.mark.parametrize("which", ["tied", "chat"])
@pytest.mark.parametrize("title", NASTY)
def test_no_title_changes_the_markup_tokens(checkpoints: dict[str, Path], which: str, title: str) -> None:
    made = encoder(checkpoints[which])
    around = [
        Segment("codes", "0 3"),
        Segment("markup", " then "),
        Segment("data", title),
        Segment("codes", "2"),
        Segment("markup", "?"),
    ]
    plain = [Segment(s.kind, "tea") if s.kind == "data" else s for s in around]
    assert markup_ids(made, made.prompt_ids(around)) == markup_ids(made, made.prompt_ids(plain))
    assert markup_ids(made, made.completion_ids([Segment("data", title or "x")])) == markup_ids(
        made, made.completion_ids([Segment("data", "x")])
    )


@pytest.mark.parametrize("title", [t for t in NASTY if t])
def test_a_title_survives_encoding(checkpoints: dict[str, Path], title: str) -> None:
    made = encoder(checkpoints["tied"])
    assert made.tokenizer.decode(made.text_ids(title), clean_up_tokenization_spaces=False) == title


def test_plain_form_begins_and_ends_with_the_tokenizers_own_tokens(checkpoints: dict[str, Path]) -> None:
    made = encoder(checkpoints["tied"])
    assert made.form == "plain"
    prompt, completion = (
        made.prompt_ids([Segment("markup", "Liked: ")]),
        made.completion_ids([Segment("markup", " Yes ")]),
    )
    assert made.tokenizer.decode(prompt) == "<|start|>Liked:"
    assert made.tokenizer.decode(completion) == " Yes<|end|>"
    assert made.tokenizer.decode(made.completion_ids([Segment("codes", "0 3")])) == "<a_0><b_0><|end|>"
    assert made.tokenizer.decode(made.completion_ids([Segment("codes", "0 3")], end=False)) == "<a_0><b_0>"


def test_chat_form_uses_the_checkpoints_turns(checkpoints: dict[str, Path]) -> None:
    made = encoder(checkpoints["chat"])
    assert made.form == "chat"
    prompt, completion = (
        made.prompt_ids([Segment("markup", "Liked: ")]),
        made.completion_ids([Segment("markup", "Yes")]),
    )
    assert made.tokenizer.decode(prompt) == "<|start|>user\nLiked:<|end|>\n<|start|>assistant\n"
    assert made.tokenizer.decode(completion) == "Yes<|end|>"
    assert encoder(checkpoints["chat"], "plain").form == "plain"


def test_chat_form_without_a_template_is_an_error(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="needs a tokenizer with a chat template"):
        encoder(checkpoints["tied"], "chat")


def test_an_empty_completion_is_an_error(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="a completion is empty"):
        encoder(checkpoints["tied"]).completion_ids([Segment("data", "  ")])


def test_a_unigram_piece_that_spells_a_special_token_is_broken_up() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), ("</s>", 0.0)] + [(c, -2.0) for c in "abc</s>"]
    raw = Tokenizer(models.Unigram(pieces, unk_id=0))
    made = Encoder(
        PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>", pad_token="</s>"), ()
    )
    assert 1 not in made.text_ids("a</s>b")
    assert made.tokenizer.convert_ids_to_tokens(made.text_ids("a</s>b")) == list("a</s>b")
