"""Stretches of a text that are encoded alone as they are within it: cut before a single blank, which no token reaches over."""

from __future__ import annotations

import re
from functools import cached_property
from itertools import product
from typing import Any

from rectune.prompts.encoder import Encoder

BLANK = " "
# What may stand on either side of a blank: letters of several scripts, digits, marks that tokenizers join with their neighbours, an unknown sign.
_SIDES = (
    "a", "Z", "é", "ß", "й", "ا", "中", "の", "한", "7", "42", ".", ",", ":", ";", "!", "?", "…", "-", "–", "_", "/", "&", "$", "#", "%", "*",
    "'", "'s", "’", '"', "»", "(", ")", "]", "}", "<", ">", "\u0301", "😀", "½", "\u200b",
)  # fmt: skip
_BLANKS = re.compile("[^ ▁][ ▁]")


def first_cut(text: str, *, after_text: bool, before_text: bool) -> int | None:
    """The first place of `text` where a single blank stands between two characters that are none. `after_text`, `before_text`: whether such a
    character stands before and behind `text`."""
    return next(_cuts(text, after_text, before_text), None)


def last_cut(text: str, *, after_text: bool, before_text: bool) -> int | None:
    """The last such place."""
    return max(_cuts(text, after_text, before_text), default=None)


def _cuts(text: str, after_text: bool, before_text: bool) -> Any:
    for at, character in enumerate(text):
        before = text[at - 1] if at else "x" * after_text
        after = text[at + 1] if at + 1 < len(text) else "x" * before_text
        if character == BLANK and is_seen(before) and is_seen(after):
            yield at


def is_seen(character: str) -> bool:
    """Whether a character is there and no kind of blank."""
    return bool(character) and not character.isspace() and character != "▁"


class Stretches:
    """Encodes stretches of texts for one tokenizer."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._before = encoder.text_ids("x", first=False)
        self._after = encoder.text_ids("x x", first=False)[len(self._before) :]

    @cached_property
    def apart(self) -> bool:
        """Whether the ids of a text are those of what stands before a single blank and of what begins with it, whatever the text is.

        Either the tokenizer cuts there before it looks at its vocabulary, or it has no token that reaches over a blank; and so it is for
        examples of every kind of character.
        """
        later = self._encoder.later
        splits = later.pre_tokenizer is not None and all(
            any(len(left) in place for _, place in later.pre_tokenizer.pre_tokenize_str(f"{left} {right}"))
            for left, right in product(_SIDES, ("a", "7", "."))
        )
        if not splits and any(_BLANKS.search(piece) for piece in later.get_vocab(with_added_tokens=True)):
            return False
        behind = {right: self.ids(f" {right}", first=False, cut_before=True, cut_after=False) for right in _SIDES}
        ahead = {left: self._encoder.text_ids(left, first=False) for left in _SIDES}
        return all(
            self._encoder.text_ids(f"{left} {right}", first=False) == ahead[left] + (behind[right] or [-1])
            for left, right in product(_SIDES, _SIDES)
        )

    def ids(self, text: str, *, first: bool, cut_before: bool, cut_after: bool) -> list[int] | None:
        """Ids of a stretch. `cut_before`, `cut_after`: whether the text goes on there, else it begins (the whole sequence: `first`) or ends.
        None where they depend on what stands beside it."""
        before, after = "x" * cut_before, " x" * cut_after
        ids = self._encoder.text_ids(before + text + after, first=first and not cut_before)
        if cut_after:
            if ids[-len(self._after) :] != self._after:
                return None
            ids = ids[: -len(self._after)]
        if cut_before:
            if ids[: len(self._before)] != self._before:
                return None
            ids = ids[len(self._before) :]
        return ids
