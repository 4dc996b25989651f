"""Where templates run: Jinja's sandbox, and an end to what one rendering may take."""

from __future__ import annotations

import re
from collections.abc import Callable, Sized
from functools import wraps
from types import BuiltinMethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_CHARACTERS = 10_000_000  # of one text, and of one rendering; ten thousand items of a thousand characters
MOST_STEPS = 300_000  # turns of loops, and calls, in one rendering: about a second
WORK = 50  # characters or entries that take a step to go through
CALL = 5  # stepsthat a call takes as long as
_WIDTH = re.compile(r"\d{8,}|%[-+ #0]*\*|\{[^{}]*\{")
_GROWING = frozenset(
    (
        "replace",
        "join",
        "format",
        "center",
        "ljust",
        "rjust",
        "zfill",
        "expandtabs",
        "indent",
        "wordwrap",
        "batch",
        "slice",
        "lipsum",
    )
)


class TooMuch(ValueError):
    """A template asks for more than a rendering may take."""


class _BoundedCode(CodeGenerator):
    """Jinja's code, with `~` done by the environment."""

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which a rendering ends: texts, lists, numbers, loops and calls are counted.

    `begin()` starts a rendering's count anew. Raises TooMuch, and whatever else Jinja or a filter raises.
    """

    code_generator_class = _BoundedCode
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, finalize: Callable[[Any], str]) -> None:
        super().__init__(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
        self.steps = self.printed = 0

        def bounded(value: Any) -> str:
            text = finalize(value)
            self.printed += len(text)
            if self.printed > MOST_CHARACTERS:
                raise TooMuch(f"it prints more than {MOST_CHARACTERS:,} characters")
            return text

        self.finalize = bounded
        self.filters = {name: self._bounded_call(name, function) for name, function in self.filters.items()}
        self.filters["counted"] = self._counted
        self.globals["range"] = _bounded_range
        self.globals["lipsum"] = self._bounded_call("lipsum", self.globals["lipsum"])  # type: ignore[arg-type]

    def begin(self) -> None:
        """Start to count anew."""
        self.steps = self.printed = 0

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """`+`, `*`, `**` and `%`, refused before they make something huge."""
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, Sized) and isinstance(times, int) and len(many) * times > MOST_CHARACTERS:
                    raise TooMuch(f"it repeats something to a length of {len(many) * times:,}")
        if operator == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > 10_000:
            raise TooMuch(f"{left} ** {right} has too many digits")
        if operator == "%" and isinstance(left, str):
            _check_widths(left)
        return self._held(super().call_binop(context, operator, left, right))

    def joined(self, parts: tuple[Any, ...]) -> str:
        """What `~` gives."""
        texts = [str(part) for part in parts]
        if sum(map(len, texts)) > MOST_CHARACTERS:
            raise TooMuch(f"a text grows beyond {MOST_CHARACTERS:,} characters")
        return str(self._held("".join(texts)))

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a macro, a function or a method."""
        self._step(CALL)
        if isinstance(function, BuiltinMethodType):  # a method of a text, a list or a mapping
            _check_size(function.__name__, function.__self__, *args, *kwargs.values())
        return self._held(super().call(context, function, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, refused where a width is huge."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_widths(value.__self__)
        return wrapped

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Every loop counts what it runs over."""
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, "counted", [], [], None, None, lineno=loop.lineno)
        return tree

    def _counted(self, values: Any) -> Any:
        held = values if isinstance(values, Sized) else list(values)
        self._step(len(held))
        return held

    def _held(self, value: Any) -> Any:
        """A value that was made, counted by its size: many large ones may be kept at a time."""
        if isinstance(value, Sized) and not isinstance(value, dict):
            self._step(len(value) // WORK)
        return _checked(value)

    def _step(self, count: int) -> None:
        self.steps += count
        if self.steps > MOST_STEPS:
            raise TooMuch(f"its loops and calls take more than {MOST_STEPS:,} steps")

    def _bounded_call(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        given = 1 if hasattr(function, "jinja_pass_arg") else 0  # Jinja's context stands before the arguments

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self._step(1 + sum(len(arg) for arg in args[given:] if isinstance(arg, Sized)) // WORK)
            _check_size(name, *args[given:], *kwargs.values())
            return self._held(function(*args, **kwargs))

        return bounded


def _bounded_range(*args: int) -> range:
    asked = range(*args)
    if (asked and max(abs(asked[0]), abs(asked[-1])) > 2**62) or len(asked) > MOST_STEPS:
        raise TooMuch(f"{asked} is longer than {MOST_STEPS:,}")
    return asked


def _check_size(name: str, *args: Any) -> None:
    """Raise TooMuch for a method or filter whose numbers or texts make something huge of what it is given first."""
    if name not in _GROWING:
        return
    if any(isinstance(arg, int) and arg > MOST_CHARACTERS for arg in args[1:]):
        raise TooMuch(f"`{name}` is asked for more than {MOST_CHARACTERS:,} characters")
    if name in ("format", "lipsum"):
        _check_widths(str(args[0]) if args else "")
    if name in ("replace", "join"):
        lengths = sorted(len(arg) for arg in args if isinstance(arg, Sized))[-2:]
        if len(lengths) == 2 and lengths[0] * lengths[1] > MOST_CHARACTERS:
            raise TooMuch(f"`{name}` can make more than {MOST_CHARACTERS:,} characters of this")


def _check_widths(pattern: str) -> None:
    if _WIDTH.search(pattern):
        raise TooMuch(
            f"the format {pattern[:60]!r} has a width above {MOST_CHARACTERS:,}, or one that is not written out"
        )


def _checked(value: Any) -> Any:
    if isinstance(value, str | list | tuple) and len(value) > MOST_CHARACTERS:
        raise TooMuch(f"something grows beyond a length of {MOST_CHARACTERS:,}")
    return value
