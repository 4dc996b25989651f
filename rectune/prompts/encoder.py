"""From segments to token ids: the one function behind training examples, prompts and the trie."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rectune.prompts.template import Segment
from rectune.prompts.text_tokenizer import check_backend, is_blank, text_tokenizers
from rectune.prompts.thinking import close_thinking

Form = Literal["auto", "chat", "plain"]
_PROMPT, _ANSWER = "\ue003", "\ue004"
_ENDS = (":", "?", ".", "e", "x")  # what a prompt may end with; see `_continued`

FRAME = "frame.json"


@dataclass(frozen=True)
class Frame:
    """What stands around every prompt: texts with special tokens spelt out, and the id of the token that ends a completion.

    `lead`: the blank between a prompt and a completion that starts with text; it is encoded with the completion. `closed`: what was
    added to `between` because the template ends a prompt inside an open block of reasoning.

    It is rendered once, when the base of a run is made, and kept there: a chat template may print the date, and a model is
    asked as it was tuned.
    """

    form: Literal["chat", "plain"]
    before: str
    between: str
    end: int
    lead: str = ""
    closed: str = ""

    def save(self, folder: Path) -> None:
        """Write `frame.json`."""
        (folder / FRAME).write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Frame | None:
        """Read what `save` wrote; None where nothing was kept."""
        file = folder / FRAME
        if not file.exists():
            return None
        kept = json.loads(file.read_text(encoding="utf-8"))
        return Frame(**{"lead": " " if kept["form"] == "plain" else "", **kept})


class Encoder:
    """Turns prompts and completions into token ids for one tokenizer and one index vocabulary.

    The written rule. `chat` form: the prompt is the user's turn and the completion the assistant's, in the
    checkpoint's own chat template without thinking; the completion ends with the token that ends the turn. `plain`
    form: the tokenizer's beginning-of-text token if it sets one by itself, the prompt, the completion, the
    end-of-text token; a completion that starts with text gets one space before it. `auto` takes `chat` when the
    tokenizer has a chat template. White space at the end of a prompt and around a completion is dropped. A block of
    reasoning that the template leaves open is closed, empty. Prompt and completion are encoded apart, so training and ranking
    see the same ids, and together they are what the tokenizer makes of the whole text at once (docs/tokenizers.md).
    """

    def __init__(
        self, tokenizer: Any, vocabulary: Sequence[str], *, form: Form = "auto", frame: Frame | None = None
    ) -> None:
        """`frame`: as it was rendered before; then `form` says nothing. None: render it now."""
        check_backend(tokenizer)
        self.tokenizer = tokenizer
        self.form: Literal["chat", "plain"] = "plain"
        if form == "chat" or (form == "auto" and tokenizer.chat_template):
            self.form = "chat"
        if frame is not None:
            self.form = frame.form
        self.code_ids: list[int] = tokenizer.convert_tokens_to_ids(list(vocabulary)) if vocabulary else []
        coded = set(vocabulary)
        added = {
            int(n): t for n, t in tokenizer.added_tokens_decoder.items() if str(t) not in coded and not is_blank(str(t))
        }
        self._added = {str(token): number for number, token in added.items()}
        self._strips_left = {number for number, token in added.items() if token.lstrip}
        self._strips_right = {number for number, token in added.items() if token.rstrip}
        ordered = sorted(self._added, key=len, reverse=True)
        self._split_added = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._first, self.later = text_tokenizers(tokenizer)  # of texts that begin a sequence, and within one
        self.frame = frame if frame is not None else self._rendered()
        self._before, self._between = (
            [Segment("markup", text)] if text else [] for text in (self.frame.before, self.frame.between)
        )
        self.end_id = self.frame.end
        self._end = [self.end_id]
        last = self._pieces(self._between)[-1:] or [""]
        self._contexts = _ENDS if self.form == "plain" else (last[0],) if isinstance(last[0], str) else ()

    def text_ids(self, text: str, *, first: bool = True) -> list[int]:
        """Encode characters as characters: no added token, however it is spelt, comes out of this, and what the tokenizer does not
        know stays its unknown token. `first`: whether the text begins a sequence; some tokenizers put a blank before it only there.
        """
        return list((self._first if first else self.later).encode(text, add_special_tokens=False).ids)

    def unknown_characters(self, text: str) -> int:
        """How many characters of a text become the unknown token."""
        unknown, encoded = self.tokenizer.unk_token_id, self._first.encode(text, add_special_tokens=False)
        return sum(stop - start for n, (start, stop) in zip(encoded.ids, encoded.offsets, strict=True) if n == unknown)

    def ids(self, segments: Sequence[Segment], *, first: bool = True) -> list[int]:
        """Encode segments; runs of text between special tokens and codes are encoded as one text. `first`: see `text_ids`."""
        return self._ids_of(self._pieces(segments), first=first)

    def _ids_of(self, pieces: Sequence[str | int], *, first: bool) -> list[int]:
        ids: list[int] = []
        for number, piece in enumerate(pieces):
            ids += [piece] if isinstance(piece, int) else self.text_ids(piece, first=first and number == 0)
        return ids

    def _pieces(self, segments: Sequence[Segment]) -> list[str | int]:
        """Segments as texts and ids, no two texts in a row; blanks that a special token takes away are gone."""
        joined: list[str | int] = []
        for segment in segments:
            parts: Sequence[str | int] = [segment.text]
            if segment.kind != "data":
                parts = self._codes(segment.text) if segment.kind == "codes" else self._markup(segment.text)
            for part in parts:
                if isinstance(part, str) and joined and isinstance(joined[-1], str):
                    joined[-1] += part
                elif part != "":
                    joined.append(part)
        before, after = [None, *joined[:-1]], [*joined[1:], None]
        for i, piece in enumerate(joined):
            if isinstance(piece, str):
                piece = piece.lstrip() if before[i] in self._strips_right else piece
                joined[i] = piece.rstrip() if after[i] in self._strips_left else piece
        return [piece for piece in joined if piece != ""]

    def prompt_pieces(self, prompt: Sequence[Segment]) -> list[list[str | int]]:
        """What `prompt_ids` encodes: texts and ids of all that stands before the completion, in lines that are encoded as if each were the first."""
        said = _strip_end(prompt)
        if self.form == "plain":  # the tokenizer itself puts its beginning before a text that is encoded as the first
            return [self._pieces(self._before), self._pieces(said)]
        return [self._pieces([*self._before, *said, *self._between])]

    def prompt_ids(self, prompt: Sequence[Segment]) -> list[int]:
        """Ids of all that stands before the completion, turns and beginning of text included."""
        ids = [token for line in self.prompt_pieces(prompt) for token in self._ids_of(line, first=True)]
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
        pieces = self._pieces(stripped)
        begin = pieces[0]
        ids = [begin] if isinstance(begin, int) else self._continued(begin)
        return ids + self._ids_of(pieces[1:], first=False) + (self._end if end else [])

    def _continued(self, text: str) -> list[int]:
        """Ids of the text that a completion begins with, as it is encoded after a prompt: of both together, what is left when those of
        the prompt are taken off. So it gets no blank that a tokenizer puts before a text that is encoded alone."""
        text = self.frame.lead + text
        for context in self._contexts:
            before, both = (self.text_ids(t, first=False) for t in (context, context + text))
            if both[: len(before)] == before and len(both) > len(before):
                return both[len(before) :]
        return self.text_ids(text, first=False)

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
            return Frame("plain", tokenizer.bos_token if starts else "", "", tokenizer.eos_token_id, lead=" ")
        if not tokenizer.chat_template:
            raise ValueError("`model.prompt_form: chat` needs a tokenizer with a chat template; use `plain`.")
        turn = [{"role": "user", "content": _PROMPT}]
        opening = self._chat(turn, add_generation_prompt=True)
        whole = self._chat([*turn, {"role": "assistant", "content": _ANSWER}])
        if opening.count(_PROMPT) != 1 or whole.count(_ANSWER) != 1 or whole.count(_PROMPT) != 1:
            raise ValueError("the chat template does not print the user's and the assistant's words once; use `plain`.")
        before, between = opening.split(_PROMPT)
        answered, after = whole.split(_ANSWER)
        answered = answered.split(_PROMPT)[1]
        if answered.startswith(
            between
        ):  # what the template prints before an answer and leaves out where it asks for one
            between = answered
        between, closed = close_thinking(between)
        closing = [piece for piece in self._markup(after) if isinstance(piece, int)]
        end = closing[0] if closing else tokenizer.eos_token_id
        if end is None:
            raise ValueError(
                "the chat template ends an answer with no special token, and the tokenizer has no end of text; use another base."
            )
        said = between.rstrip(" ")
        return Frame("chat", before, said, end, lead=between[len(said) :], closed=closed)

    def _chat(self, turns: list[dict[str, str]], **options: Any) -> str:
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False, **options))
        except Exception as error:  # whatever it is, the template did it
            said = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"the chat template of the tokenizer could not be rendered: {said}. Use `model.prompt_form: plain`."
            ) from None


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
