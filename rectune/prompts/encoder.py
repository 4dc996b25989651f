"""From segments to token ids: the one function behind training examples, prompts and the trie."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rectune.prompts.template import Segment

Form = Literal["auto", "chat", "plain"]
_PROMPT, _ANSWER = "\ue003", "\ue004"


FRAME = "frame.json"


@dataclass(frozen=True)
class Frame:
    """What stands around every prompt: texts with special tokens spelt out, and the id of the token that ends a completion.

    It is rendered once, when the base of a run is made, and kept there: a chat template may print the date, and a model is
    asked as it was tuned.
    """

    form: Literal["chat", "plain"]
    before: str
    between: str
    end: int

    def save(self, folder: Path) -> None:
        """Write `frame.json`."""
        (folder / FRAME).write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Frame | None:
        """Read what `save` wrote; None where nothing was kept."""
        file = folder / FRAME
        return Frame(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


class Encoder:
    """Turns prompts and completions into token ids for one tokenizer and one index vocabulary.

    The written rule. `chat` form: the prompt is the user's turn and the completion the assistant's, in the
    checkpoint's own chat template without thinking; the completion ends with the token that ends the turn. `plain`
    form: the tokenizer's beginning-of-text token if it sets one by itself, the prompt, the completion, the
    end-of-text token; a completion that starts with text gets one space before it. `auto` takes `chat` when the
    tokenizer has a chat template. White space at the end of a prompt and around a completion is dropped. Prompt
    and completion are encoded apart, so training and ranking see the same ids.
    """

    def __init__(
        self, tokenizer: Any, vocabulary: Sequence[str], *, form: Form = "auto", frame: Frame | None = None
    ) -> None:
        """`frame`: as it was rendered before; then `form` says nothing. None: render it now."""
        self.tokenizer = tokenizer
        self.form: Literal["chat", "plain"] = "plain"
        if form == "chat" or (form == "auto" and tokenizer.chat_template):
            self.form = "chat"
        if frame is not None:
            self.form = frame.form
        self.code_ids: list[int] = tokenizer.convert_tokens_to_ids(list(vocabulary)) if vocabulary else []
        added = {str(token): int(number) for number, token in tokenizer.added_tokens_decoder.items()}
        coded = set(vocabulary)
        self._added = {text: number for text, number in added.items() if text not in coded}
        self._forbidden = set(added.values())
        ordered = sorted(self._added, key=len, reverse=True)
        self._split_added = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._text = _text_tokenizer(tokenizer)
        self.frame = frame if frame is not None else self._rendered()
        self._before, self._between = (
            [Segment("markup", text)] if text else [] for text in (self.frame.before, self.frame.between)
        )
        self.end_id = self.frame.end
        self._end = [self.end_id]

    def text_ids(self, text: str) -> list[int]:
        """Encode characters as characters: no added token, however it is spelt, comes out of this."""
        ids: list[int] = []
        encoded = self._text.encode(text, add_special_tokens=False)
        for number, (start, stop) in zip(encoded.ids, encoded.offsets, strict=True):
            if number not in self._forbidden:
                ids.append(number)
                continue
            letters = [
                n for letter in text[start:stop] for n in self._text.encode(letter, add_special_tokens=False).ids
            ]
            ids += [n for n in letters if n not in self._forbidden]
        return ids

    def ids(self, segments: Sequence[Segment]) -> list[int]:
        """Encode segments; runs of text between special tokens and codes are encoded as one text."""
        ids: list[int] = []
        run = ""
        for segment in segments:
            if segment.kind == "data":
                run += segment.text
                continue
            pieces = self._codes(segment.text) if segment.kind == "codes" else self._markup(segment.text)
            for piece in pieces:
                if isinstance(piece, str):
                    run += piece
                    continue
                ids += self.text_ids(run) if run else []
                run = ""
                ids.append(piece)
        return ids + (self.text_ids(run) if run else [])

    def prompt_ids(self, prompt: Sequence[Segment]) -> list[int]:
        """Ids of all that stands before the completion, turns and beginning of text included."""
        ids = self.ids([*self._before, *_strip_end(prompt), *self._between])
        if not ids:
            raise ValueError(
                "a prompt has no tokens: this tokenizer sets no beginning of text and the template printed nothing."
            )
        return ids

    def completion_ids(self, completion: Sequence[Segment], *, end: bool = True) -> list[int]:
        """Ids of a completion, its end token included unless `end` is false."""
        stripped = _strip_end(_strip_start(completion))
        if not stripped:
            raise ValueError("a completion is empty: the template's `completion` printed nothing.")
        if self.form == "plain" and stripped[0].kind != "codes":
            stripped = [Segment("markup", " "), *stripped]
        return self.ids(stripped) + (self._end if end else [])

    def _codes(self, text: str) -> list[int]:
        return [self.code_ids[int(code)] for code in text.split()]

    def _markup(self, text: str) -> list[int | str]:
        if self._split_added is None:
            return [text]
        out: list[int | str] = []
        at = 0
        for match in self._split_added.finditer(text):
            out += [text[at : match.start()], self._added[match.group()]]
            at = match.end()
        return [*out, text[at:]]

    def _rendered(self) -> Frame:
        """The frame of the tokenizer's own template, or the plain one."""
        tokenizer = self.tokenizer
        if self.form == "plain":
            starts = tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
            if tokenizer.eos_token_id is None:
                raise ValueError("the tokenizer has no end-of-text token; set one in it before tuning.")
            return Frame("plain", tokenizer.bos_token if starts else "", "", tokenizer.eos_token_id)
        if not tokenizer.chat_template:
            raise ValueError("`model.prompt_form: chat` needs a tokenizer with a chat template; use `plain`.")
        turn = [{"role": "user", "content": _PROMPT}]
        options = {"tokenize": False, "enable_thinking": False}
        opening = tokenizer.apply_chat_template(turn, add_generation_prompt=True, **options)
        whole = tokenizer.apply_chat_template([*turn, {"role": "assistant", "content": _ANSWER}], **options)
        if opening.count(_PROMPT) != 1 or whole.count(_ANSWER) != 1:
            raise ValueError("the chat template does not print the user's and the assistant's words once; use `plain`.")
        before, between = opening.split(_PROMPT)
        closing = [piece for piece in self._markup(whole.split(_ANSWER)[1]) if isinstance(piece, int)]
        end = closing[0] if closing else tokenizer.eos_token_id
        return Frame("chat", before, between, end)


def _text_tokenizer(tokenizer: Any) -> Any:
    """A copy of the tokenizer that knows no added tokens and adds none."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    return Tokenizer.from_str(json.dumps(state))


def _strip_end(segments: Sequence[Segment]) -> list[Segment]:
    out = list(segments)
    while out and out[-1].kind != "codes":
        last = Segment(out[-1].kind, out[-1].text.rstrip())
        if last.text:
            return [*out[:-1], last]
        out.pop()
    return out


def _strip_start(segments: Sequence[Segment]) -> list[Segment]:
    out = list(segments)
    while out and out[0].kind != "codes":
        first = Segment(out[0].kind, out[0].text.lstrip())
        if first.text:
            return [first, *out[1:]]
        out.pop(0)
    return out
