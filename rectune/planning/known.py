"""What is known of a run before it is run: vocabulary, new tokens, examples, as far as its stages are already there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rectune.log.split import evenly
from rectune.run.folder import RunFolder, Stage
from rectune.run.line import Line, signature_defaults

_SAMPLE = 200  # examples whose lengths are looked at


@dataclass
class Known:
    """`new_tokens` and `vocabulary` (of the tokenizer, new tokens included) may be what the recipe's keys promise. `levels`: tokens of
    an item's name. `notes` say what is not known."""

    new_tokens: int
    vocabulary: int | None
    levels: int | None = None
    notes: list[str] = field(default_factory=list)


class Examples(NamedTuple):
    """Examples an epoch, their mean `length` in tokens, and the longest `completion` of those that were looked at."""

    number: int
    length: float
    completion: int


class NotBuilt(Exception):
    """A stage that is not there yet."""


class ClosedFolder(RunFolder):
    """A run folder in which nothing is built."""

    def stage(
        self, name: str, keys: Any, inputs: Sequence[Stage], build: Callable[[Path], None], **options: bool
    ) -> Stage:
        """The stage, where it is there. Raises NotBuilt."""
        there = self.place(name, keys, inputs)
        if not there.folder.exists():
            raise NotBuilt(name)
        return there


def known_of(line: Line) -> Known:
    """Look what the run folder holds; nothing is built."""
    line.folder = ClosedFolder(line.folder.path, line.recipe.name)
    try:
        index = line.index
    except (NotBuilt, OSError):
        return _promised(line)
    known = Known(len(index.vocabulary), None, levels=int(index.codes.shape[1]) if index.codes is not None else None)
    try:
        known.vocabulary = len(line.encoder.tokenizer)
    except (NotBuilt, OSError):
        known.vocabulary = _tokenizer_size(line, known.new_tokens)
    return known


UNREAD = (
    "steps, tokens and hours: not known before the log is read; they are once `rectune train` has built log, split, index and "
    "tokenizer in the output folder"
)


def _promised(line: Line) -> Known:
    function, arguments = line._index_call
    keys = {**signature_defaults(function), **arguments}
    notes = []
    levels, codes = keys.get("levels"), keys.get("codes")
    if isinstance(levels, int) and isinstance(codes, int):
        new = levels * codes
    else:
        levels, new = None, 0
        if function.__name__ != "titles":
            notes.append(f"new tokens: not known before the index `{function.__name__}` is built; counted as none")
    new += line._user_tokens
    return Known(new, _tokenizer_size(line, new), levels=levels, notes=notes)


def _tokenizer_size(line: Line, new: int) -> int | None:
    """Tokens of a tokenizer that will be trained, at most; None for a checkpoint's."""
    settings = line.model_settings
    return None if settings.from_scratch is None else settings.text_vocab_size + new


def examples_of(line: Line, i: int, config: Any) -> Examples | None:
    """What stage i trains, or None where log, split, index or tokenizer are not built."""
    from rectune.tasks.examples import Mixture

    try:
        specs, encoder = line.stage_specs(i), line.encoder
        mixture = Mixture(specs, "train", encoder, seed=line.seed, max_length=config.max_length, loss_on_all=False)
    except (NotBuilt, OSError):
        return None
    some = [mixture.example(int(p), 0) for p in evenly(len(mixture), _SAMPLE)]
    lengths = [len(e.prompt) + len(e.completion) for e in some]
    return Examples(
        len(mixture), float(np.mean(lengths)) if lengths else 0.0, max((len(e.completion) for e in some), default=0)
    )
