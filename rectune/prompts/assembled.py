"""Prompts put together instead of rendered: what stands between the names of items is rendered and encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Template, codes_value

Pieces = tuple[list[int], list[tuple[int, list[int]]]]  # token ids, then the place of a name and what follows it, …


class Assembly:
    """Token ids of what a template writes about items, where it reads of them nothing but names made of codes.

    A code is a token that no text around it can change, so a prompt is the same pieces for all histories of a length. They are found by rendering made-up names,
    and compared with the first real row of each wording and length; where anything differs, that wording and length is rendered as ever. `codes`: of each
    item's name, (items, levels), -1 after the end of shorter ones.
    """

    def __init__(self, encoder: Encoder, template: Template, codes: NDArray[np.integer]) -> None:
        self._encoder, self._template = encoder, template
        table = np.append(np.array(encoder.code_ids, dtype=np.int64), -1)[codes]
        self._names: list[list[int]] = [row[row >= 0].tolist() for row in table]
        self._prompts: dict[tuple[int, int], Pieces | None] = {}
        self._completions: dict[int, Pieces | None] = {}

    def prompt(self, wording: int, history: Sequence[int], rendered: Callable[[], list[int]]) -> list[int]:
        """The prompt of a history, item codes, oldest first. `rendered()`: the same by the template."""
        key = (wording, len(history))
        if key not in self._prompts:
            return self._learn(self._prompts, key, lambda: self._prompt_of(wording, len(history)), history, rendered)
        pieces = self._prompts[key]
        return rendered() if pieces is None else self._put_together(pieces, history)

    def completion(self, wording: int, target: int, rendered: Callable[[], list[int]]) -> list[int]:
        """The completion that names an item, its end included."""
        if wording not in self._completions:
            return self._learn(self._completions, wording, lambda: self._completion_of(wording), [target], rendered)
        pieces = self._completions[wording]
        return rendered() if pieces is None else self._put_together(pieces, [target])

    def _learn(
        self, known: dict[Any, Pieces | None], key: Any, find: Callable[[], Pieces | None], items: Sequence[int], rendered: Callable[[], list[int]]
    ) -> list[int]:  # fmt: skip
        own = rendered()
        pieces = find()
        known[key] = pieces if pieces is not None and self._put_together(pieces, items) == own else None
        return own

    def _put_together(self, pieces: Pieces, items: Sequence[int]) -> list[int]:
        ids = pieces[0].copy()
        names = self._names
        for place, after in pieces[1]:
            ids += names[items[place]]
            ids += after
        return ids

    def _prompt_of(self, wording: int, length: int) -> Pieces | None:
        if self._template.arguments("prompt") != ("history",):
            return None

        def ids(codes: Sequence[int]) -> list[int]:
            history = [{"name": codes_value([code])} for code in codes]
            return self._encoder.prompt_ids(self._template.prompt(wording, {"history": history}))

        return self._cut(ids, length)

    def _completion_of(self, wording: int) -> Pieces | None:
        if self._template.arguments("completion") != ("target",):
            return None

        def ids(codes: Sequence[int]) -> list[int]:
            said = self._template.completion(wording, {"target": {"name": codes_value([codes[0]])}})
            return self._encoder.completion_ids(said, end=self._template.end)

        return self._cut(ids, 1)

    def _cut(self, ids: Callable[[Sequence[int]], list[int]], length: int) -> Pieces | None:
        """Cut what is written of made-up names, all of them different, at these; None where names that are all the same give something else."""
        tokens = self._encoder.code_ids
        if length + 1 > len(tokens):
            return None
        try:
            different, same = ids(range(length)), ids([length] * length)
        except ValueError:  # it reads something else of an item
            return None
        place = {token: number for number, token in enumerate(tokens[:length])}
        if [tokens[length] if token in place else token for token in different] != same:
            return None
        first, rest = list[int](), list[tuple[int, list[int]]]()
        into = first
        for token in different:
            if token in place:
                into = []
                rest.append((place[token], into))
            else:
                into.append(token)
        return first, rest
