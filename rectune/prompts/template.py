"""Templates: how a task is said in words, rendered as (markup | data | codes) segments."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2

from rectune.prompts.reads import only_prints, reads
from rectune.prompts.sandbox import BoundedEnvironment, TooMuch
from rectune.runtime.near import near
from rectune.runtime.seeded import hashed
from rectune.runtime.text_files import read_text

# Private-use characters that fence what comes out of an expression; they are replaced in every value that goes in.
_DATA, _CODES, _END = "\ue000", "\ue001", "\ue002"
_FENCED = re.compile(f"{_DATA}(.*?){_END}|{_CODES}(.*?){_END}", re.DOTALL)
_FENCES = re.compile(f"[{_DATA}{_CODES}{_END}]")


class Segment(NamedTuple):
    """A piece of a rendered text.

    `markup` stands literally in the template and may hold special tokens. `data` came out of an expression and is
    only ever characters. `codes` holds positions in the index vocabulary, such as '12 5 9'.
    """

    kind: Literal["markup", "data", "codes"]
    text: str


def codes_value(codes: list[int]) -> str:
    """Return index codes as a value that a template can print; only this makes `codes` segments."""
    return f"{_CODES}{' '.join(map(str, codes))}{_END}"


def clean_value(text: str) -> str:
    """Return `text` with the private characters that fence segments replaced by U+FFFD."""
    return _FENCES.sub("\ufffd", text)


def _fence(value: Any) -> str:
    """Fence the value of a template expression: all of it is data, but for codes."""
    if value is None:
        raise TypeError("an expression printed None")
    text = str(value)
    out, at = [], 0
    for match in _FENCED.finditer(text):
        out += [_as_data(text[at : match.start()]), match.group()]
        at = match.end()
    return "".join([*out, _as_data(text[at:])])


def _as_data(text: str) -> str:
    return f"{_DATA}{clean_value(text)}{_END}" if text else ""


def segments(rendered: str) -> list[Segment]:
    """What a template printed, cut at the fences of its values."""
    out: list[Segment] = []
    at = 0
    for match in _FENCED.finditer(rendered):
        if match.start() > at:
            out.append(Segment("markup", rendered[at : match.start()]))
        out.append(Segment("data", match[1]) if match[1] is not None else Segment("codes", match[2]))
        at = match.end()
    if at < len(rendered):
        out.append(Segment("markup", rendered[at:]))
    return out


@dataclass(frozen=True)
class Template:
    """A `.jinja` file with two macros, `prompt(wording, ...)` and `completion(wording, ...)`.

    It sets `wordings`, the number of ways it says the task, and may set `end = false` for completions that need no
    end-of-text token (names that are never a prefix of another name). A third macro, `spellings(wording, ...)`, may print
    other ways to write the completion, one a line. The other arguments of the macros are variables of the task.
    """

    name: str
    source: str
    wordings: int
    end: bool

    @property
    def hash(self) -> str:
        """SHA-256 of the file's text; stored with a tuned model and checked when it ranks."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def prompt(self, wording: int, variables: Mapping[str, Any]) -> list[Segment]:
        """Render what the model reads. Raises ValueError for a variable that the task does not give."""
        return self._render("prompt", wording, variables)

    def completion(self, wording: int, variables: Mapping[str, Any]) -> list[Segment]:
        """Render what the model has to write. Raises ValueError like `prompt`."""
        return self._render("completion", wording, variables)

    def spellings(self, wording: int, variables: Mapping[str, Any]) -> list[list[Segment]]:
        """The completion, then the other ways to write it, without repeats. Raises ValueError when there is no `spellings`."""
        if not hasattr(_module(self.name, self.source)[1], "spellings"):
            raise ValueError(f"{self.name}: `rank.spellings` needs a macro `spellings(wording, ...)` in the template.")
        every = [self.completion(wording, variables), *_lines(self._render("spellings", wording, variables))]
        return [one for i, one in enumerate(every) if _plain(one) not in map(_plain, every[:i])]

    def arguments(self, macro: str) -> tuple[str, ...]:
        """The variables that a macro asks for, `wording` left out."""
        return tuple(a for a in _macro(self.name, self.source, macro).arguments if a != "wording")

    def reads(self, macro: str, name: str) -> bool:
        """Whether a macro, or one that it may call, reads a variable."""
        return reads(self.source, macro, name)

    @property
    def shows_user(self) -> bool:
        """Whether prompts are made of the user's token, too."""
        return "user" in self.arguments("prompt")

    def only_prints(self, columns: tuple[str, ...]) -> bool:
        """Whether prompts do nothing with these columns of an item but print them."""
        return only_prints(self.source, columns)

    def _render(self, macro: str, wording: int, variables: Mapping[str, Any]) -> list[Segment]:
        if not 0 <= wording < self.wordings:
            raise ValueError(f"{self.name}: wording {wording} does not exist; it has 0 to {self.wordings - 1}.")
        wanted = self.arguments(macro)
        for name in wanted:
            if name not in variables:
                raise ValueError(
                    f"{self.name}: `{macro}` asks for `{name}`, which this task does not give.{near(name, variables)}"
                )
        environment, module = _module(self.name, self.source)
        environment.begin()
        try:
            rendered = str(getattr(module, macro)(wording, **{name: variables[name] for name in wanted}))
        except Exception as error:  # whatever it is, the template did it
            raise ValueError(f"{self.name}: `{macro}`, wording {wording}: {_said(error)}.") from None
        return segments(rendered)


def _lines(segments: list[Segment]) -> list[list[Segment]]:
    """Cut segments at the line ends of the markup; blank lines left out."""
    lines: list[list[Segment]] = [[]]
    for kind, text in segments:
        for number, part in enumerate(text.split("\n") if kind == "markup" else [text]):
            if number:
                lines.append([])
            if part:
                lines[-1].append(Segment(kind, part))
    return [line for line in lines if _plain(line)]


def _plain(segments: list[Segment]) -> str:
    return "".join(text for _, text in segments).strip()


def load_template(path: Path) -> Template:
    """Read a template file. Raises ValueError when it is not UTF-8 or not valid Jinja, or lacks a macro or `wordings`."""
    source = read_text(path).replace("\r\n", "\n")
    _, module = _module(path.name, source)
    for macro in ("prompt", "completion"):
        arguments = getattr(getattr(module, macro, None), "arguments", ())
        if not arguments or arguments[0] != "wording":
            raise ValueError(f"{path.name}: a template needs a macro `{macro}(wording, ...)`.")
    wordings = module.__dict__.get("wordings")
    if not isinstance(wordings, int) or isinstance(wordings, bool) or wordings < 1:
        raise ValueError(f"{path.name}: a template needs `{{% set wordings = N %}}`, the number of its wordings.")
    return Template(path.name, source, wordings, bool(module.__dict__.get("end", True)))


def draw_wording(template: Template, *, seed: int, epoch: int, row: int) -> int:
    """The wording of a row in an epoch: a hash, so that any row can be rendered again alone."""
    return hashed(seed, epoch, row, template.name) % template.wordings


def _macro(name: str, source: str, macro: str) -> Any:
    return getattr(_module(name, source)[1], macro)


@lru_cache(maxsize=64)
def _module(name: str, source: str) -> tuple[BoundedEnvironment, Any]:
    """Where a template runs, and what it holds once it has run."""
    environment = BoundedEnvironment(finalize=_fence)
    try:
        return environment, environment.from_string(source).module
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"{name}:{error.lineno}: {error.message}.") from None
    except Exception as error:  # whatever it is, the template did it
        raise ValueError(f"{name}: {_said(error)}.") from None


def _said(error: Exception) -> str:
    """An error of a template in a few words."""
    if isinstance(error, RecursionError):
        return "it calls itself without end"
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    said = " ".join(str(error).split()).rstrip(".")
    known = isinstance(error, jinja2.TemplateError | TypeError | TooMuch) and said
    return said if known else f"{type(error).__name__}: {said}".rstrip(": ")
