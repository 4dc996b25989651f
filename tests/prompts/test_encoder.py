"""The encoder: texts stay texts, one rule for turns and ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import AddedToken, ByT5Tokenizer, PreTrainedTokenizerFast

from rectune.model.new_tokens import train_tokenizer
from rectune.prompts.encoder import Encoder, Frame
from rectune.prompts.template import Segment
from tests.prompts.families import FAMILIES, gemma, unigram

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


@pytest.mark.parametrize("name", FAMILIES)
def test_no_text_becomes_an_added_token_in_any_family(name: str) -> None:
    tokenizer = FAMILIES[name]()
    tokenizer.add_tokens([AddedToken("<a_0>", normalized=False)])
    made = Encoder(tokenizer, ["<a_0>"])
    special = {
        str(token): number for number, token in tokenizer.added_tokens_decoder.items() if str(token).strip(" \n▁")
    }
    unknown = tokenizer.unk_token_id
    for token, number in special.items():
        for text in (token, f"Tea {token}", f"{token}{token}", f"Tea{token}Pot", f" {token} (2)"):
            ids = set(made.text_ids(text)) - {unknown}
            assert not ids & set(special.values()), (token, text, number)
            assert not (set(made.completion_ids([Segment("data", text)], end=False)) - {unknown}) & set(
                special.values()
            )
            prompt = made.prompt_ids([Segment("markup", "Liked: "), Segment("data", text)])
            plain = made.prompt_ids([Segment("markup", "Liked: "), Segment("data", "tea")])
            keep = set(special.values()) - {unknown}
            assert [i for i in prompt if i in keep] == [i for i in plain if i in keep]


@pytest.mark.parametrize("title", ["<|start|>", "<|end|>", "Tea <|end|>", "<|pad|><|pad|>", "<|start|>user"])
def test_a_tokenizer_made_from_titles_that_spell_its_own_tokens_keeps_them_text(title: str) -> None:
    tokenizer = train_tokenizer([title, f"{title}, {title}. Next item: {title}"] * 200, 4096)
    made = Encoder(tokenizer, ())
    ids = made.completion_ids([Segment("data", title)])
    assert [i for i in ids if i < 3] == [made.end_id]  # <|pad|>, <|start|> and <|end|> are the first three
    assert tokenizer.decode(ids[:-1]).strip() == title


def test_a_vocabulary_that_merges_up_to_a_special_token_does_not_write_it() -> None:
    letters = list("<s>|tea")
    merges = [("<", "s"), ("<s", ">"), ("t", "e"), ("te", "a")]
    names = [*letters, *("".join(pair) for pair in merges)]
    raw = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    raw.add_special_tokens(["<s>"])
    made = Encoder(PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="<s>"), ())
    assert made.tokenizer.convert_ids_to_tokens(made.text_ids("<s>tea")) == ["<s", ">", "tea"]


@pytest.mark.parametrize("old", [False, True])
def test_what_a_tokenizer_does_not_know_stays_its_unknown_token(old: bool) -> None:
    tokenizer = unigram(old=old)
    made, unknown = Encoder(tokenizer, ()), tokenizer.unk_token_id
    for text in ("red 红色茶壶 lamp", "{}", "{red}", "红 色", "a🙂b"):
        assert made.text_ids(text) == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert unknown in made.text_ids(text)
    assert made.text_ids("red lamp") != made.text_ids("red {}lamp")
    assert made.unknown_characters("red 红色茶壶 lamp") == 4
    assert made.unknown_characters("red lamp") == 0


def test_line_ends_that_are_tokens_stay_in_texts() -> None:
    made = Encoder(gemma(), ())
    whole = made.tokenizer("red\n\nlamp\ntall", add_special_tokens=False)["input_ids"]
    assert made.text_ids("red\n\nlamp\ntall") == whole
    assert made.tokenizer.decode(whole) == "red\n\nlamp\ntall"


def test_a_tokenizer_without_a_backend_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"its tokenizer is a `ByT5Tokenizer`, which has no `tokenizer.json`"):
        Encoder(ByT5Tokenizer(), ())


def test_a_chat_template_that_raises_is_one_line(checkpoints: dict[str, Path]) -> None:
    made = encoder(checkpoints["chat"], "plain")
    for wrong in (
        "{{ raise_exception('only for\\nhappy users') }}",
        "{{ messages[7].content }}",
        "{% if %}",
        "{{ 1 / 0 }}",
    ):
        made.tokenizer.chat_template = wrong
        with pytest.raises(
            ValueError, match=r"the chat template of the tokenizer could not be rendered: .*prompt_form: plain"
        ):
            Encoder(made.tokenizer, VOCABULARY)
