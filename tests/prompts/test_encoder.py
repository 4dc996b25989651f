"""The encoder: texts stay texts, one rule for turns and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from rectune.prompts.encoder import Encoder, Frame
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


DATED = "{{ strftime_now('%Y-%m-%d %H:%M:%S.%f') }} {% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}"


def test_a_frame_is_rendered_once_and_kept(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    made = encoder(checkpoints["chat"])
    made.tokenizer.chat_template = DATED
    first, second = (Encoder(made.tokenizer, VOCABULARY) for _ in range(2))
    prompt = [Segment("markup", "Which item?")]
    assert first.prompt_ids(prompt) != second.prompt_ids(prompt)  # the template prints the time of day
    first.frame.save(tmp_path)
    again = Encoder(made.tokenizer, VOCABULARY, form="plain", frame=Frame.load(tmp_path))
    assert again.form == "chat"
    assert again.frame == first.frame
    assert again.prompt_ids(prompt) == first.prompt_ids(prompt)
    assert again.completion_ids(prompt, end=True) == first.completion_ids(prompt, end=True)
    assert Frame.load(tmp_path / "nothing") is None


@pytest.mark.parametrize("which", ["tied", "chat"])
def test_a_kept_frame_gives_the_ids_of_a_rendered_one(checkpoints: dict[str, Path], which: str, tmp_path: Path) -> None:
    made = encoder(checkpoints[which])
    made.frame.save(tmp_path)
    kept = Encoder(made.tokenizer, VOCABULARY, frame=Frame.load(tmp_path))
    for title in NASTY:
        segments = [Segment("markup", "A "), Segment("data", title), Segment("codes", "1")]
        assert kept.prompt_ids(segments) == made.prompt_ids(segments)
        assert kept.completion_ids(segments, end=True) == made.completion_ids(segments, end=True)
