"""A language model that ranks the catalogue or chooses an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.answers import (
    Normaliser,
    choice_probabilities,
    distinct_answers,
    first_tokens,
    group_prompts,
    one_begins_another,
)
from rectune.decoding.batching import CHUNK, SMALL_CHUNK, Batches, chunks
from rectune.decoding.beam import Scores
from rectune.decoding.continued import continued
from rectune.decoding.engine import AnswerEngine, Engine
from rectune.decoding.ranking import Ranking, join_rankings
from rectune.decoding.shelf import ALL, Shelf
from rectune.decoding.trie import Clash, Trie, build_trie
from rectune.indexing.item_index import ItemIndex
from rectune.log.split import evenly
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Segment, Template, codes_value
from rectune.runtime.processes import gather, wait
from rectune.tasks.examples import RowPrompts
from rectune.tasks.rows import TaskRows

_WIDEST = 2**24  # scored children in one batch; each takes about 25 bytes


@dataclass(frozen=True)
class RankSettings:
    """The section `rank`.

    `beams` wide lists are searched, `k` of them are recommended; `scores` as in `Engine`; prompts use `wording` of
    `template` and at most `max_length` tokens. `batch_tokens` tokens (prompts, and beams of all steps) are in memory at
    a time. `exact`: complete each list until it is proven, with at most `exact_nodes` more prefixes a row. `prior`: a
    module that scores items without a language model, its keys, and `weight`, see `rectune.run.asked.AskedPrior`. `normaliser` and
    `spellings`, for tasks with fixed answers: see `choice_probabilities`; with `spellings` every way to write an answer that
    the template's macro of that name prints counts for it.
    """

    template: str
    wording: int = 0
    beams: int = 20
    k: int = 10
    scores: Scores = "full"
    max_length: int | None = None
    batch_tokens: int = 8192
    exact: bool = False
    exact_nodes: int = 1000
    prior: dict[str, Any] | None = None
    normaliser: Normaliser = "ratio"
    spellings: bool = False

    def __post_init__(self) -> None:
        for name in ("beams", "k", "batch_tokens", "exact_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"`rank.{name}` must be at least 1, got {getattr(self, name)}.")
        if self.k > self.beams:
            raise ValueError(
                f"`rank.k` is {self.k}, but only `rank.beams` = {self.beams} items are searched. Raise beams or lower k."
            )
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"`rank.max_length` must be at least 1 token, got {self.max_length}.")
        if self.wording < 0:
            raise ValueError(f"`rank.wording` must be 0 or more, got {self.wording}.")


class Ranker(Protocol):
    """What a method's `load` returns."""

    def rank(self, rows: TaskRows, shelf: Shelf, *, shards: Path | None = None) -> Ranking:
        """Rank the items that the shelf allows for each row."""

    def answer(self, rows: TaskRows) -> NDArray[np.float64]:
        """Probability of each answer for each row, shape (rows, answers)."""


@dataclass
class LanguageModelRanker:
    """Ranks with any causal language model. Rows stream through in chunks; what does not fit into memory is halved."""

    model: Any
    encoder: Encoder
    template: Template
    settings: RankSettings
    trie: Trie | None = None
    progress: bool = True
    _pad: int = field(init=False)
    _batches: Batches = field(init=False)
    _prompts: RowPrompts = field(init=False)

    def __post_init__(self) -> None:
        self._pad = int(self.encoder.tokenizer.pad_token_id)
        self._batches = Batches(self.settings.batch_tokens)
        self._prompts = RowPrompts(self.encoder, self.template)

    def prompts(
        self, rows: TaskRows, which: Sequence[int] | NDArray[np.int64], *, answer: int | None = None
    ) -> list[list[int]]:
        """Token ids of the prompts of some rows, the oldest history left out where it does not fit. `answer`: see `room`."""
        room, some = self.room(answer), rows.take(np.asarray(which, dtype=np.int64))
        wordings = np.full(len(some), self.settings.wording)
        most = None if room is None else np.full(len(some), room)
        return self._prompts.prompts(some, wordings, room=most)[0].lists()

    def room(self, answer: int | None = None) -> int | None:
        """How many tokens a prompt may have: `rank.max_length`, and what the model has positions for beside `answer` tokens (None: those of a name)."""
        limits = [self.settings.max_length, positions_of(self.model)]
        answer = answer or (self.trie.depth if self.trie is not None else 16)
        known = [limits[0]] if limits[0] is not None else []
        known += [limits[1] - answer] if limits[1] is not None else []
        return min(known) if known else None

    # ------------------------------------------------------------------------------------------------------- ranking

    @cached_property
    def engine(self) -> Engine:
        """The search over the catalogue. Made once: the model must not change afterwards."""
        assert self.trie is not None
        settings, end = self.settings, self.encoder.end_id if self.template.end else None
        return Engine(
            self.model, self.trie, scores=settings.scores, end=end, pad=self._pad,
            exact=settings.exact, exact_nodes=settings.exact_nodes,
        )  # fmt: skip

    def rank(self, rows: TaskRows, shelf: Shelf = ALL, *, shards: Path | None = None) -> Ranking:
        """Rank the catalogue, or each row's own candidates. Chunks of rows are the same whatever the number of processes; with `shards`, each finished
        chunk is kept in that folder and not ranked again after a kill. Raises ValueError when no item is allowed."""
        if self.trie is None:
            raise ValueError("this model chooses answers; it has no items to rank.")
        if shelf.allowed is not None and not shelf.allowed.any():
            raise ValueError(
                "no item may be listed: all of them are denied, or none of the allowed is in the catalogue."
            )
        own, shelf = [], shelf.among(rows.candidates)
        size = CHUNK if shards else SMALL_CHUNK
        for number, chunk in chunks(len(rows), "ranking", size=size, progress=self.progress, batches=self._batches):
            file = shards / _shard(number) if shards else None
            if file is None:
                own.append(self._rank_chunk(rows, chunk, shelf))
            elif not file.exists():
                self._rank_chunk(rows, chunk, shelf).save(file.with_suffix(".partial"))
                file.with_suffix(".partial").replace(file)
        if shards is None:
            parts = [part for several in gather(own) for part in several]
        else:
            wait()
            parts = [Ranking.load(shards / _shard(number)) for number in range(-(-len(rows) // CHUNK))]
        return join_rankings(parts, rows.row.astype(np.int64))

    def _rank_chunk(self, rows: TaskRows, chunk: NDArray[np.int64], shelf: Shelf) -> Ranking:
        assert self.trie is not None
        beams, prompts = self.settings.beams, self.prompts(rows, chunk)
        prefix = self.engine.prefix(prompts)

        def search(batch: list[int]) -> Ranking:
            asked = [prompts[i] for i in batch]
            return self.engine.search(asked, beams=beams, shelf=shelf.take(chunk[batch]), prefix=prefix)

        items = np.full((len(chunk), beams), -1, dtype=np.int32)
        scores = np.full((len(chunk), beams), -np.inf, dtype=np.float32)
        exact = np.zeros(len(chunk), dtype=bool)
        lengths = [len(prompt) + (self.trie.depth - 1) * beams for prompt in prompts]
        widest = max(self.trie.widest(beams), 0 if shelf.prior is None else self.trie.n_items)
        most = max(1, _WIDEST // widest)
        for batch, found in self._batches.each(lengths, search, most=most):
            items[batch], scores[batch], exact[batch] = found.items, found.scores, found.exact
        return Ranking(rows.row[chunk].astype(np.int64), items, scores, exact)

    def write(self, rows: TaskRows, *, most: int) -> list[str]:
        """What the model writes of its own after each prompt, at most `most` tokens of it, always the likeliest next one; no list holds it to anything."""
        own = []
        for _, chunk in chunks(len(rows), "writing", size=SMALL_CHUNK, progress=self.progress):
            prompts = self.prompts(rows, chunk, answer=most)
            texts = [""] * len(chunk)
            lengths = [len(prompt) + most for prompt in prompts]

            def write(batch: list[int], prompts: list[list[int]] = prompts) -> list[str]:
                ids = continued(
                    self.model, [prompts[i] for i in batch], most=most, pad=self._pad, end=self.encoder.end_id
                )
                return self.encoder.tokenizer.batch_decode(ids, skip_special_tokens=True)  # type: ignore[no-any-return]

            for batch, found in self._batches.each(lengths, write, most=SMALL_CHUNK):
                for i, text in zip(batch, found, strict=True):
                    texts[i] = text
            own.append((chunk, texts))
        every = [part for several in gather(own) for part in several]
        by_row = {int(i): text for chunk, texts in every for i, text in zip(chunk, texts, strict=True)}
        return [by_row[i] for i in range(len(rows))]

    # ------------------------------------------------------------------------------------------------------- answers

    def answer(self, rows: TaskRows) -> NDArray[np.float64]:
        """Chance of each answer, as `rank.normaliser` says. What the prompts of several rows begin with is forwarded once.

        Raises ValueError for answers that the tokenizer cannot write or tell apart.
        """
        if not rows.answers:
            raise ValueError("this task has no fixed answers.")
        answers, of = self._completions(rows)
        normaliser = self.settings.normaliser
        engine = AnswerEngine(self.model, answers, pad=self._pad)
        own: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        for _, chunk in chunks(len(rows), "answering", size=SMALL_CHUNK, progress=self.progress):
            prompts = self.prompts(rows, chunk)
            own.append((chunk, self._score_answers(engine, prompts, len(answers))))
        every = [part for several in gather(own) for part in several]
        order = np.argsort(np.concatenate([chunk for chunk, _ in every]))
        logp = np.concatenate([values for _, values in every])[order]
        return choice_probabilities(logp, of, normaliser=normaliser)

    def _completions(self, rows: TaskRows) -> tuple[list[list[int]], list[int]]:
        """Token ids of every way to write an answer, and which answer it is; with the end of text where one is the beginning
        of another ('1' of '10')."""
        example, wording = rows.variables(0), self.settings.wording
        ways: list[tuple[int, list[Segment]]] = []
        for number, answer in enumerate(rows.answers):
            variables = {**example, **answer}
            plain = [self.template.completion(wording, variables)]
            several = self.template.spellings(wording, variables) if self.settings.spellings else plain
            ways += [(number, way) for way in several]
        for _, way in ways:
            self._check_known(way)
        ids = answer_ids(self.encoder, self.template, [way for _, way in ways])
        if self.settings.normaliser == "tallrec":
            ids = first_tokens(ids)
        distinct_answers(ids)
        return ids, [number for number, _ in ways]

    def _check_known(self, way: list[Segment]) -> None:
        if self.encoder.tokenizer.unk_token_id in self.encoder.completion_ids(way, end=False):
            said = "".join(segment.text for segment in way).strip()
            raise ValueError(
                f"the tokenizer has no tokens for the answer {said!r} of {self.template.name}. Word it otherwise."
            )

    def _score_answers(self, engine: AnswerEngine, prompts: list[list[int]], answers: int) -> NDArray[np.float64]:
        """Log-probabilities (prompts, answers). Groups that don't fit into memory are made smaller."""
        logp, done = np.zeros((len(prompts), answers)), np.zeros(len(prompts), dtype=bool)
        while len(left := np.flatnonzero(~done)):
            groups = [
                [int(left[i]) for i in g] for g in group_prompts([prompts[i] for i in left], most=self._batches.tokens)
            ]
            lengths = [sum(len(prompts[i]) for i in group) for group in groups]

            def score(batch: list[int], groups: list[list[int]] = groups) -> list[NDArray[np.float64]]:
                return engine.score([[prompts[i] for i in groups[g]] for g in batch])

            try:
                for batch, found in self._batches.each(lengths, score, most=CHUNK):
                    for g, values in zip(batch, found, strict=True):
                        logp[groups[g]], done[groups[g]] = values, True
            except MemoryError:
                if max(map(len, groups)) == 1:
                    raise
                self._batches.shrink(max(lengths))
        return logp


def answer_ids(encoder: Encoder, template: Template, ways: Sequence[list[Segment]]) -> list[list[int]]:
    """Token ids of written answers, with the end of text where one is the beginning of another ('1' of '10')."""
    ids = [encoder.completion_ids(way, end=False) for way in ways]
    if template.end and one_begins_another(ids):
        return [encoder.completion_ids(way, end=True) for way in ways]
    return ids


def _shard(number: int) -> str:
    return f"rows-{number:06d}.parquet"


def positions_of(model: Any) -> int | None:
    """The longest sequence that the model has positions for, or None where its config does not say."""
    config = model.config.get_text_config()
    known = [getattr(config, name) for name in ("max_position_embeddings", "n_positions") if hasattr(config, name)]
    return int(known[0]) if known else None


def catalogue_trie(
    encoder: Encoder,
    template: Template,
    wording: int,
    view: Callable[[int], Any],
    index: ItemIndex,
    *,
    called: Callable[[int], str] = str,
) -> Trie:
    """The trie of what every item tokenises to after the ranking prompt. `view`: what the template sees of an item.

    Raises ValueError for two items whose names are one; `called`: how it calls an item.
    """

    def name(item: int) -> list[int]:
        return encoder.completion_ids(template.completion(wording, {"target": view(item)}), end=template.end)

    if _prints_codes_alone(template, wording) and not index.titles:
        table = np.append(np.array(encoder.code_ids, dtype=np.int64), -1)[index.codes]
        if template.end:
            table = np.column_stack([table, np.full(len(table), -1)])
            table[np.arange(len(table)), (table >= 0).sum(axis=1)] = encoder.end_id
        if all(table[i][table[i] >= 0].tolist() == name(int(i)) for i in evenly(len(table), 200)):
            return build_trie(table, fixed_length=not template.end)
    try:
        return build_trie([name(item) for item in range(len(index))], fixed_length=not template.end)
    except Clash as clash:
        raise Clash(*clash.items, called) from None


def _prints_codes_alone(template: Template, wording: int) -> bool:
    """Whether a completion is the target's name and asks for nothing else of it."""
    try:
        printed = template.completion(wording, {"target": {"name": codes_value([0])}})
    except ValueError:
        return False
    return [s for s in printed if s.kind == "codes" or s.text.strip()] == [Segment("codes", "0")]
