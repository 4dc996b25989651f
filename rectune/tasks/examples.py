"""Examples: rendered, encoded and cut to length; nothing is dropped in silence."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rectune.log.split import Histories, Ints, Part, evenly
from rectune.prompts.assembled import Assembly
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Template, draw_wording
from rectune.runtime.ragged import Ragged
from rectune.runtime.seeded import seeded
from rectune.tasks.rows import TaskRows
from rectune.tasks.views import ItemViews, Variables

SAMPLE = 500  # texts of which a share is taken
MANY = 4096  # examples that are made at once


@dataclass(frozen=True)
class TaskSpec:
    """A task of the recipe: how to get its rows, its template, and its share of an epoch."""

    name: str
    rows: Callable[[Part], TaskRows]
    template: Template
    share: float = 1.0


class Example(NamedTuple):
    """Token ids of one example; `dropped` history entries did not fit, `wording` was drawn."""

    prompt: list[int]
    completion: list[int]
    dropped: int
    wording: int


def fit(
    encoder: Encoder, template: Template, wording: int, variables: Variables, *, max_length: int | None, what: str
) -> Example:
    """Encode an example in at most `max_length` tokens: the target is never cut, the oldest history goes first.

    A conversation (`turns`) loses its oldest turns and then, as instruction sets hold texts of any length, the middle of its
    prompt and the end of its answer. Raises ValueError naming `what` when anything else does not fit even without a history.
    """
    completion = _completion_ids(encoder, template, wording, variables)
    if max_length is not None and "turns" in variables:
        return _fit_turns(encoder, template, wording, variables, completion, max_length)
    prompt, dropped = fit_prompt(
        encoder,
        template,
        wording,
        variables,
        room=None if max_length is None else max_length - len(completion),
        what=what,
    )
    return Example(prompt, completion, dropped, wording)


def _fit_turns(
    encoder: Encoder, template: Template, wording: int, variables: Variables, completion: list[int], max_length: int
) -> Example:
    turns, dropped = list(variables["turns"]), 0
    while True:
        prompt = encoder.prompt_ids(template.prompt(wording, {**variables, "turns": turns}))
        oldest = 1 if turns[0]["role"] == "system" else 0
        if len(prompt) + len(completion) <= max_length:
            return Example(prompt, completion, dropped, wording)
        dropped += 1
        if oldest + 1 >= len(turns):
            break
        del turns[oldest]
    completion = completion[: max(max_length - len(prompt), max_length // 2)]
    room = max_length - len(completion)
    return Example(prompt[: room - room // 2] + prompt[len(prompt) - room // 2 :], completion, dropped, wording)


def fit_prompt(
    encoder: Encoder, template: Template, wording: int, variables: Variables, *, room: int | None, what: str
) -> tuple[list[int], int]:
    """Encode a prompt in at most `room` tokens and say how many of the oldest history entries were left out."""
    length, dropped = len(variables.get("history") or []), 0
    while True:
        ids = _prompt_ids(encoder, template, wording, variables, dropped)
        if room is None or len(ids) <= room:
            return ids, dropped
        if dropped == length:
            raise _no_room(what, len(ids), room, template.name)
        dropped += int(_dropped_more(np.array(length - dropped), np.array(len(ids)), np.array(room)))


def _prompt_ids(encoder: Encoder, template: Template, wording: int, variables: Variables, dropped: int) -> list[int]:
    some = {**variables, "history": variables["history"][dropped:]} if dropped else variables
    return encoder.prompt_ids(template.prompt(wording, some))


def _completion_ids(encoder: Encoder, template: Template, wording: int, variables: Variables) -> list[int]:
    return encoder.completion_ids(template.completion(wording, variables), end=template.end)


def _dropped_more(left: NDArray[Any], tokens: NDArray[Any], room: NDArray[Any]) -> NDArray[np.int64]:
    """How many more entries of histories to leave out, of `left`, where prompts have too many tokens: about half of what that takes."""
    return np.asarray(np.maximum(1, left * (1 - room / tokens) * 0.5), dtype=np.int64)


def _no_room(what: str, tokens: int, room: int, name: str) -> ValueError:
    return ValueError(
        f"{what}: {tokens} tokens of prompt without any history, but only {max(room, 0)} fit beside the target. "
        f"Raise `max_length` or shorten `{name}`."
    )


class RowPrompts:
    """Prompts and completions of the rows of tasks, put together where that is known to be the same as rendering them."""

    def __init__(self, encoder: Encoder, template: Template) -> None:
        self._encoder, self._template = encoder, template
        self._assembly: tuple[ItemViews, Assembly] | None = None

    def prompts(self, rows: TaskRows, wordings: Ints, *, room: Ints | None, what: str = "") -> tuple[Ragged, Ints]:
        """As `fit_prompt`, of all rows: token ids, and how many entries were left out, (rows,). `wordings`, `room`: (rows,). `what`: said before the
        number of a row that does not fit."""
        assembly = self._of(rows)
        if assembly is None or rows.history is None:
            every = [self._rendered(rows, i, int(wordings[i]), room, what) for i in range(len(rows))]
            return Ragged.of([ids for ids, _ in every]), np.array([dropped for _, dropped in every], dtype=np.int64)
        lengths = rows.history.stop - rows.history.start
        dropped = np.zeros(len(rows), dtype=np.int64)
        users = np.full(len(rows), -1) if rows.users is None else rows.users

        def made(some: Ints, history: Histories) -> Ragged:
            def rendered(at: int) -> list[int]:
                i = int(some[at])
                return _prompt_ids(self._encoder, self._template, int(wordings[i]), rows.variables(i), int(dropped[i]))

            return assembly.prompts(wordings[some], history.joined(), users[some], rendered)

        prompts = made(np.arange(len(rows)), rows.history)
        while room is not None and len(over := np.flatnonzero(prompts.lengths > room)):
            if len(whole := over[dropped[over] == lengths[over]]):
                i = int(whole[0])
                raise _no_room(
                    f"{what}row {int(rows.row[i])}", int(prompts.lengths[i]), int(room[i]), self._template.name
                )
            dropped[over] += _dropped_more(lengths[over] - dropped[over], prompts.lengths[over], room[over])
            prompts = prompts.put(over, made(over, rows.history.take(over).without_first(dropped[over])))
        return prompts, dropped

    def encoded(
        self, rows: TaskRows, wordings: Ints, *, max_length: int | None, what: str = ""
    ) -> tuple[Ragged, Ragged, Ints]:
        """As `fit`, of all rows: prompts, completions, and how many entries were left out, (rows,)."""
        assembly = self._of(rows)
        if assembly is None:
            every = [
                fit(
                    self._encoder, self._template, int(wording), rows.variables(i),
                    max_length=max_length, what=f"{what}row {int(rows.row[i])}",
                )
                for i, wording in enumerate(wordings)
            ]  # fmt: skip
            left_out = np.array([example.dropped for example in every], dtype=np.int64)
            return Ragged.of([e.prompt for e in every]), Ragged.of([e.completion for e in every]), left_out

        def rendered(i: int) -> list[int]:
            return _completion_ids(self._encoder, self._template, int(wordings[i]), rows.variables(i))

        completions = assembly.completions(wordings, rows.target, rendered)
        room = None if max_length is None else max_length - completions.lengths
        prompts, dropped = self.prompts(rows, wordings, room=room, what=what)
        return prompts, completions, dropped

    def examples(self, rows: TaskRows, wordings: Ints, *, max_length: int | None, what: str = "") -> list[Example]:
        """As `encoded`, in lists."""
        prompts, completions, dropped = self.encoded(rows, wordings, max_length=max_length, what=what)
        columns = prompts.lists(), completions.lists(), dropped.tolist(), wordings.tolist()
        return [Example(*one) for one in zip(*columns, strict=True)]

    def _rendered(self, rows: TaskRows, i: int, wording: int, room: Ints | None, what: str) -> tuple[list[int], int]:
        most, named = None if room is None else int(room[i]), f"{what}row {int(rows.row[i])}"
        return fit_prompt(self._encoder, self._template, wording, rows.variables(i), room=most, what=named)

    def _of(self, rows: TaskRows) -> Assembly | None:
        if rows.views is None:
            return None
        if self._assembly is None or not self._assembly[0].same_as(rows.views):
            self._assembly = (rows.views, Assembly(self._encoder, self._template, rows.views))
        return self._assembly[1]


class Mixture:
    """The training examples of an epoch: every task with its share of rows, drawn anew each epoch.

    Position p of epoch e is the same example whoever asks, whenever: it depends on (seed, e, p) only.
    """

    def __init__(
        self,
        specs: Sequence[TaskSpec],
        part: Part,
        encoder: Encoder,
        *,
        seed: int,
        max_length: int | None,
        loss_on_all: bool,
    ) -> None:
        self.encoder, self.seed, self.max_length, self.loss_on_all = encoder, seed, max_length, loss_on_all
        self.tasks = [(spec, rows) for spec in specs if len(rows := spec.rows(part)) > 0]
        self._prompts = {id(spec): RowPrompts(encoder, spec.template) for spec, _ in self.tasks}
        sizes = [max(1, round(spec.share * len(rows))) for spec, rows in self.tasks]
        self._ends = np.cumsum(sizes)
        self._order: dict[tuple[int, int], Ints] = {}
        self._groups: tuple[int, Ints] | None = None
        self.epoch = 0  # set by the trainer; rendering takes the epoch as an argument

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, position: int, epoch: int) -> tuple[TaskSpec, TaskRows, int]:
        """Return the task of a position in an epoch, its rows, and which of them."""
        which = int(np.searchsorted(self._ends, position, side="right"))
        spec, rows = self.tasks[which]
        offset = position - (int(self._ends[which - 1]) if which else 0)
        return spec, rows, int(self._drawn(which, epoch)[offset])

    def example(self, position: int, epoch: int) -> Example:
        """The example at a position of an epoch."""
        return self.examples([position], epoch)[0]

    def examples(self, positions: Sequence[int] | Ints, epoch: int) -> list[Example]:
        """The examples at some positions of an epoch."""
        places = np.asarray(positions, dtype=np.int64)
        tasks = np.searchsorted(self._ends, places, side="right")
        found: dict[int, Example] = {}
        for which in np.unique(tasks).tolist():
            spec, rows = self.tasks[which]
            own = np.flatnonzero(tasks == which)
            start = int(self._ends[which - 1]) if which else 0
            some = rows.take(self._drawn(which, epoch)[places[own] - start])
            wordings = self._wordings(spec.template, some, epoch)
            made = self._prompts[id(spec)].examples(
                some, wordings, max_length=self.max_length, what=f"task `{spec.name}`, "
            )
            found.update(zip(own.tolist(), made, strict=True))
        return [found[i] for i in range(len(places))]

    def _wordings(self, template: Template, rows: TaskRows, epoch: int) -> Ints:
        if template.wordings == 1:
            return np.zeros(len(rows), dtype=np.int64)
        drawn_by = rows.row if rows.group is None else rows.group
        drawn = [draw_wording(template, seed=self.seed, epoch=epoch, row=row) for row in drawn_by.tolist()]
        return np.array(drawn, dtype=np.int64)

    def lengths(self, epoch: int) -> Ints:
        """Tokens of every example of an epoch, (positions,)."""
        found = np.zeros(len(self), dtype=np.int64)
        for begin in range(0, len(self), MANY):
            some = np.arange(begin, min(begin + MANY, len(self)))
            found[some] = [len(e.prompt) + len(e.completion) for e in self.examples(some, epoch)]
        return found

    @property
    def varies(self) -> bool:
        """Whether an epoch has other rows or other wordings than the one before."""
        return any(spec.share != 1 or spec.template.wordings > 1 for spec, _ in self.tasks)

    @property
    def grouped(self) -> bool:
        """Whether any task has examples that begin alike and are to be trained together."""
        return any(rows.group is not None for _, rows in self.tasks)

    def groups(self, epoch: int) -> Ints:
        """For each position of an epoch a number that it shares with the examples that begin like it, negative where it stands alone, shape (positions,)."""
        if self._groups is None or self._groups[0] != epoch:
            alone, found = -1 - np.arange(len(self)), []
            for which, (_, rows) in enumerate(self.tasks):
                drawn = self._drawn(which, epoch)
                start = int(self._ends[which - 1]) if which else 0
                some = alone[start : start + len(drawn)]
                found.append(
                    some if rows.group is None else rows.group[drawn].astype(np.int64) * len(self.tasks) + which
                )
            self._groups = epoch, np.concatenate(found)
        return self._groups[1]

    def features(self, positions: Sequence[int], epoch: int) -> list[dict[str, Any]]:
        """For each position `input_ids` and `labels` (-100 where there is no loss) for the trainer."""
        found = []
        for example in self.examples(positions, epoch):
            ids = example.prompt + example.completion
            labels = ids if self.loss_on_all else [-100] * len(example.prompt) + example.completion
            found.append({"input_ids": ids, "labels": labels})
        return found

    def grouped_features(self, positions: Sequence[int], epoch: int) -> list[dict[str, Any]]:
        """`features` with the number of its `group`."""
        groups = self.groups(epoch)[np.asarray(positions, dtype=np.int64)].tolist()
        return [{**own, "group": group} for own, group in zip(self.features(positions, epoch), groups, strict=True)]

    def _drawn(self, which: int, epoch: int) -> Ints:
        """The rows of a task in an epoch: all of them, or a random share without repeats (with whole repeats above 1)."""
        if (which, epoch) not in self._order:
            _, rows = self.tasks[which]
            size = int(self._ends[which]) - (int(self._ends[which - 1]) if which else 0)
            whole, rest = divmod(size, len(rows))
            drawn = np.sort(seeded(self.seed, epoch, which).choice(len(rows), rest, replace=False))
            self._order = {k: v for k, v in self._order.items() if k[1] == epoch}
            self._order[(which, epoch)] = np.concatenate([*[np.arange(len(rows))] * whole, drawn]).astype(np.int64)
        return self._order[(which, epoch)]


def sample_texts(specs: Sequence[TaskSpec], *, most: int) -> Iterator[str]:
    """Yield up to `most` rendered training texts, evenly spread over tasks, rows and wordings, codes left out.

    A tokenizer trained on them has seen what the model will read.
    """
    for spec in specs:
        rows = spec.rows("train")
        for number, i in enumerate(evenly(len(rows), most // len(specs) + 1)):
            variables = rows.variables(int(i))
            wording = number % spec.template.wordings
            segments = spec.template.prompt(wording, variables) + spec.template.completion(wording, variables)
            yield "".join(s.text if s.kind != "codes" else " " for s in segments)


def warn_unknown(encoder: Encoder, specs: Sequence[TaskSpec], *, most: int = SAMPLE) -> None:
    """Warn where the tokenizer does not know characters of the training texts: what differs only in them is one text to the model.

    The share is that of the characters of up to `most` texts that are no white space.
    """
    if encoder.tokenizer.unk_token_id is None:
        return
    texts = ["".join(text.split()) for text in sample_texts(specs, most=most)]
    unknown = [encoder.unknown_characters(text) for text in texts]
    if not any(unknown):
        return
    share = sum(unknown) / sum(map(len, texts))
    seen = Counter(letter for text, count in zip(texts, unknown, strict=True) if count for letter in text)
    letters = [letter for letter, _ in seen.most_common() if encoder.unknown_characters(letter)]
    warnings.warn(
        f"the tokenizer does not know {share:.2%} of the characters of the texts ({len(letters)} letters, such as "
        f"{' '.join(letters[:5])}) and reads `{encoder.tokenizer.unk_token}` there: texts that differ only in them are one. Use a base whose "
        "tokenizer knows every character.",
        stacklevel=2,
    )


def length_statistics(mixture: Mixture, positions: Sequence[int]) -> dict[str, Any]:
    """Token lengths (min, median, 95 %, max) of the examples at `positions`, and what the length limit cuts."""
    examples = mixture.examples(positions, 0)
    lengths = np.array([len(e.prompt) + len(e.completion) for e in examples])
    dropped = np.array([e.dropped for e in examples])
    return {
        "examples": len(mixture),
        "measured": len(examples),
        "tokens": [int(np.quantile(lengths, q, method="nearest")) for q in (0, 0.5, 0.95, 1)],
        "examples_cut": int((dropped > 0).sum()),
        "history_entries_cut": int(dropped.sum()),
    }
