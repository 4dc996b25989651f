"""Prompts put together instead of rendered: what a template writes around items is rendered and encoded once, and so is what it writes of each item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rectune.prompts.encoder import Encoder
from rectune.prompts.outline import NAME, USER, Line, Outline, Slot, Views, literals
from rectune.prompts.stretches import Stretches, first_cut, is_seen, last_cut
from rectune.prompts.template import Template, segments
from rectune.runtime.ragged import Ragged, ranges, starts_of

_UNKNOWN, RENDERED = -1, -2  # of a pattern or an entry: not looked for yet; only rendering says
_NONE = 0  # the pattern of no chunks
_USER = -2  # the form of the user's token
Rendered = Callable[[int], list[int]]  # a row of those asked for -> its token ids by the template


class Assembly:
    """Token ids of what a template writes about items, where it does nothing with a history but print columns of its items.

    For each wording and length of a history the template is rendered once, of made-up items. That gives a pattern: ids that are always the
    same, and stretches that hold one item each, cut where no token reaches over (`Stretches`). A name made of codes is such a stretch by
    itself. Stretches are encoded when an item is first seen in one, and a prompt is gathered from them. A pattern is used once it gave the
    ids of a real row. Where anything is not so, the row is rendered as ever.
    """

    def __init__(self, encoder: Encoder, template: Template, views: Views) -> None:
        self._encoder, self._template, self._views = encoder, template, views
        self._outline, self._stretches = Outline(encoder, template, views), Stretches(encoder)
        self._ids, self._begin, self._length = _Grown(np.int32), _Grown(np.int64), _Grown(np.int64)  # of entries
        self._forms: dict[Any, int] = {}
        self._encode: list[Callable[[int], list[int] | None]] = []
        self._entry = np.zeros((0, len(views)), dtype=np.int32)  # (forms, items)
        # Patterns one after the other: a chunk is an entry (form -1), the user's token, or what `form` makes of the item at `which` of the history.
        self._form, self._which = _Grown(np.int32), _Grown(np.int32)
        self._first, self._chunks = _Grown(np.int64), _Grown(np.int64)  # of patterns
        self._token: int | None = None  # the entry of the first code, where prompts show the user's
        if template.shows_user:
            self._token = min((self._add([token]) for token in encoder.code_ids), default=0)
        # (without and with a user's token, wordings, lengths)
        self._pattern = np.full((2, template.wordings, 0), _UNKNOWN, dtype=np.int32)
        self._untried: dict[tuple[int, int, int], int] = {}
        self._keep([])  # the pattern of rows that are rendered

    def prompts(
        self, wordings: NDArray[np.integer], histories: Ragged, users: NDArray[np.integer], rendered: Rendered
    ) -> Ragged:
        """The prompts of histories, item codes, oldest first. `wordings`, (rows,); `users`: the codes of the users' tokens, (rows,), -1 for none."""
        lengths = histories.lengths
        if len(lengths) and (more := int(lengths.max()) + 1 - self._pattern.shape[2]) > 0:
            self._pattern = np.pad(self._pattern, ((0, 0), (0, 0), (0, more)), constant_values=_UNKNOWN)
        keys = (users >= 0).astype(np.int64), wordings, lengths
        own = {i: self._try(i, keys, histories, users, rendered) for i in self._new(keys)}
        patterns = self._pattern[keys].copy()
        patterns[np.array(list(own), dtype=np.int64)] = RENDERED
        made, whole = self._gathered(patterns, histories, users)
        slow = np.flatnonzero(~whole)
        return made.put(slow, Ragged.of([own.get(i) or rendered(i) for i in slow.tolist()])) if len(slow) else made

    def completions(self, wordings: NDArray[np.integer], targets: NDArray[np.integer], rendered: Rendered) -> Ragged:
        """The completions that name items, their end included; both (rows,)."""
        if self._template.arguments("completion") != ("target",):
            return Ragged.of([rendered(i) for i in range(len(targets))])
        alike = not self._template.reads("completion", "wording")
        form_of = {
            w: self._form_of(("completion", 0 if alike else w), self._completion(w))
            for w in np.unique(wordings).tolist()
        }
        forms = np.array([form_of[w] for w in wordings.tolist()], dtype=np.int64)
        entries = self._entries(forms, targets)
        lengths = self._length.array[entries]
        return Ragged(self._ids.array[ranges(self._begin.array[entries], lengths)], starts_of(lengths))

    def _completion(self, wording: int) -> Callable[[int], list[int]]:
        def encode(item: int) -> list[int]:
            said = self._template.completion(wording, {"target": self._views(item)})
            return self._encoder.completion_ids(said, end=self._template.end)

        return encode

    # --------------------------------------------------------------------------------------------- gathering

    def _gathered(
        self, patterns: NDArray[np.int32], histories: Ragged, users: NDArray[np.integer]
    ) -> tuple[Ragged, NDArray[np.bool_]]:
        """Rows put together, and which of them could be; the others are empty."""
        whole = patterns > _NONE
        used = np.where(whole, patterns, _NONE)
        count = self._chunks.array[used]
        at = ranges(self._first.array[used], count)
        form, entry = self._form.array[at], self._which.array[at]
        slots = np.flatnonzero(form >= 0)
        row = np.repeat(np.arange(len(patterns)), count)
        items = histories.values[histories.starts[row[slots]] + entry[slots]]
        entry[slots] = self._entries(form[slots], items)
        if self._token is not None:
            theirs = np.flatnonzero(form == _USER)
            entry[theirs] = self._token + users[row[theirs]]
        if (entry < 0).any():
            patterns = patterns.copy()
            patterns[row[entry < 0]] = RENDERED
            return self._gathered(patterns, histories, users)
        lengths = self._length.array[entry]
        ids = self._ids.array[ranges(self._begin.array[entry], lengths)]
        ends = starts_of(lengths)[starts_of(count)]
        return Ragged(ids, ends), whole

    def _entries(self, forms: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.int32]:
        """The entry of each item in a form, `RENDERED` where it has none; encoded where it is new."""
        found: NDArray[np.int32] = self._entry[forms, items]
        missing = np.flatnonzero(found == _UNKNOWN)
        if len(missing):
            for form, item in np.unique(np.stack([forms[missing], items[missing]], 1), axis=0).tolist():
                ids = self._encode[form](item)
                self._entry[form, item] = RENDERED if ids is None else self._add(ids)
            found = self._entry[forms, items]
        return found

    def _add(self, ids: Sequence[int]) -> int:
        """Keep ids as an entry."""
        self._begin.extend([len(self._ids.array)])
        self._length.extend([len(ids)])
        self._ids.extend(ids)
        return len(self._begin.array) - 1

    def _form_of(self, key: Any, encode: Callable[[int], list[int] | None]) -> int:
        """The number of a form, by what decides how it writes an item."""
        if key not in self._forms:
            self._forms[key] = len(self._encode)
            self._encode.append(encode)
            self._entry = np.concatenate([self._entry, np.full((1, len(self._views)), _UNKNOWN, dtype=np.int32)])
        return self._forms[key]

    # ---------------------------------------------------------------------------------------------- patterns

    def _new(self, keys: tuple[NDArray[Any], ...]) -> list[int]:
        """A row of each kind of users, wording and length whose pattern is not known."""
        new = np.flatnonzero(self._pattern[keys] == _UNKNOWN)
        number = np.ravel_multi_index(tuple(key[new] for key in keys), self._pattern.shape)
        return [int(i) for i in new[np.unique(number, return_index=True)[1]]]

    def _try(
        self, i: int, keys: tuple[NDArray[Any], ...], histories: Ragged, users: NDArray[np.integer], rendered: Rendered
    ) -> list[int]:
        """Render a row and decide by it whether the pattern of its wording and length is to be used; undecided where an item has no entry."""
        own = rendered(i)
        alone = histories.take(np.array([i]))
        known, wording, length = key = int(keys[0][i]), int(keys[1][i]), int(keys[2][i])
        if key not in self._untried:
            chunks = self._chunks_of(wording, length, user=bool(known))
            if chunks is None:
                self._pattern[key] = RENDERED
                return own
            self._untried[key] = self._keep(chunks)
        number = self._untried[key]
        made, whole = self._gathered(np.array([number], dtype=np.int32), alone, users[[i]])
        if whole[0]:
            self._pattern[key] = number if made.values.tolist() == own else RENDERED
        return own

    def _keep(self, chunks: Sequence[tuple[int, int]]) -> int:
        """Keep the chunks of a pattern; its number."""
        self._first.extend([len(self._form.array)])
        self._chunks.extend([len(chunks)])
        self._form.extend([form for form, _ in chunks])
        self._which.extend([which for _, which in chunks])
        return len(self._first.array) - 1

    def _chunks_of(self, wording: int, length: int, *, user: bool) -> list[tuple[int, int]] | None:
        """(form, place) or (-1, entry) of each chunk of the prompts of a wording and length."""
        lines = self._outline.lines(wording, length, user=user)
        if lines is None:
            return None
        chunks: list[tuple[int, int]] = []
        for line in lines:
            for number, part in enumerate(self._outline.runs(line)):
                cut = self._cut(part, first=number == 0)
                if cut is None:
                    return None
                chunks += cut
        return chunks

    def _cut(self, run: Line, *, first: bool) -> list[tuple[int, int]] | None:
        """Chunks of an id, of a name made of codes, or of a text, cut into stretches of at most one slot."""
        if isinstance(run[0], int):
            return [(-1, self._add([run[0]]))]
        slots = [part for part in run if isinstance(part, Slot)]
        if run[0] == USER:
            return [(_USER, 0)]
        if self._outline.is_code(run[0]):
            return [
                (self._form_of(NAME, lambda item: self._encoder.ids(segments(self._views(item)[NAME]))), slots[0].place)
            ]
        if not slots:
            return [(-1, self._add(self._encoder.text_ids("".join(map(str, run)), first=first)))]
        if not self._stretches.apart:
            return None
        return self._stretched(literals(run), slots, first=first)

    def _stretched(self, literals: list[str], slots: list[Slot], *, first: bool) -> list[tuple[int, int]] | None:
        """`literals`: what stands before, between and behind the slots, '' where nothing does."""
        lead = last_cut(literals[0], after_text=False, before_text=True)
        cuts = [first_cut(text, after_text=True, before_text=True) for text in literals[1:-1]]
        trail = first_cut(literals[-1], after_text=True, before_text=False)
        if None in cuts:
            return None
        chunks: list[tuple[int, int]] = []
        left = literals[0][lead or 0 :]
        if lead is not None and not self._fixed(chunks, literals[0][:lead], first=first, before=False, after=True):
            return None
        for number, slot in enumerate(slots):
            last = number == len(slots) - 1
            text, cut = literals[number + 1], trail if last else cuts[number]
            right = text if cut is None else text[:cut]
            before, after = number > 0 or lead is not None, not last or trail is not None
            key = slot.column, left, right, first and not before, before, after
            chunks.append((self._form_of(key, self._stretch(*key)), slot.place))
            left = text[cut:] if cut is not None else ""
        return chunks if trail is None or self._fixed(chunks, left, first=False, before=True, after=False) else None

    def _fixed(self, chunks: list[tuple[int, int]], text: str, *, first: bool, before: bool, after: bool) -> bool:
        ids = self._stretches.ids(text, first=first, cut_before=before, cut_after=after)
        if ids is not None:
            chunks.append((-1, self._add(ids)))
        return ids is not None

    def _stretch(
        self, column: str, left: str, right: str, first: bool, before: bool, after: bool
    ) -> Callable[[int], list[int] | None]:
        def encode(item: int) -> list[int] | None:
            value = self._views(item)[column]
            if not value or not is_seen(value[0]) or not is_seen(value[-1]):
                return None
            return self._stretches.ids(left + value + right, first=first, cut_before=before, cut_after=after)

        return encode


class _Grown:
    """A one-dimensional array that grows at its end."""

    def __init__(self, dtype: Any) -> None:
        self._held, self._used = np.zeros(64, dtype=dtype), 0

    @property
    def array(self) -> NDArray[Any]:
        return self._held[: self._used]

    def extend(self, values: Sequence[int]) -> None:
        end = self._used + len(values)
        if end > len(self._held):
            self._held = np.concatenate(
                [self._held, np.zeros(max(end, 2 * len(self._held)) - len(self._held), self._held.dtype)]
            )
        self._held[self._used : end] = values
        self._used = end
