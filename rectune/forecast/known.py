"""What is known of a run before it is run: vocabulary, new tokens, examples, as far as its stages are already there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rectune.model.new_tokens import rows_needed
from rectune.recipe.box import Box, Held
from rectune.recipe.calls import defaults_of
from rectune.run.asked import Asked, Training
from rectune.run.folder import RunFolder, Stage
from rectune.run.planned_box import Examples, lengths_of
from rectune.run.run import Run


@dataclass
class Known:
    """`new_tokens` and `vocabulary` (of the tokenizer, new tokens included) may be what the recipe's keys promise. `levels`: tokens of
    an item's name. `notes` say what is not known."""

    new_tokens: int
    vocabulary: int | None
    levels: int | None = None
    notes: list[str] = field(default_factory=list)


class NotBuilt(Exception):
    """A stage that is not there yet."""


class ClosedFolder(RunFolder):
    """A run folder in which nothing is built."""

    def stage(self, box: Box, needs: Sequence[Stage], held: Held) -> Stage:
        """The stage, where it is there. Raises NotBuilt."""
        there = self.place(box.name, box.keys(), needs)
        if not there.folder.exists():
            raise NotBuilt(box.name)
        return there


def known_of(run: Run) -> Known:
    """Look what a run holds whose folder is a `ClosedFolder`."""
    try:
        index = run.index
    except (NotBuilt, OSError):
        return _promised(run.asked)
    known = Known(len(index.vocabulary), None, levels=int(index.codes.shape[1]) if index.codes is not None else None)
    try:
        known.vocabulary = rows_needed(run.encoder.tokenizer)
    except (NotBuilt, OSError):
        known.vocabulary = _tokenizer_size(run.asked, known.new_tokens)
    return known


UNREAD = (
    "steps, tokens and hours: not known before the log is read; they are once `rectune train` has built log, split, index and "
    "tokenizer in the output folder"
)


def _promised(asked: Asked) -> Known:
    call = asked.index
    keys = {**defaults_of(call.function), **call.arguments}
    notes = []
    levels, codes = keys.get("levels"), keys.get("codes")
    if isinstance(levels, int) and isinstance(codes, int):
        new = levels * codes + 2 * bool(keys.get("complete"))  # a begin and an end
    else:
        levels, new = None, 0
        if call.function.__name__ != "titles":
            notes.append(f"new tokens: not known before the index `{call.function.__name__}` is built; counted as none")
    new += asked.user_tokens
    return Known(new, _tokenizer_size(asked, new), levels=levels, notes=notes)


def _tokenizer_size(asked: Asked, new: int) -> int | None:
    """Tokens of a tokenizer that will be trained, at most; None for a checkpoint's."""
    return None if asked.model.from_scratch is None else asked.model.text_vocab_size + new


def examples_of(run: Run, training: Training, config: Any) -> Examples | None:
    """What a training takes, or None where log, split, index or tokenizer are not built."""
    try:
        return lengths_of(run, training, config)
    except (NotBuilt, OSError):
        return None
