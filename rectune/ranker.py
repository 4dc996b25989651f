"""A language model that ranks the catalogue or chooses an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rectune.decoding.answers import answer_log_probabilities, choice_probabilities, distinct_answers
from rectune.decoding.beam import Scores, beam_search
from rectune.decoding.trie import Trie, build_trie
from rectune.encoder import Encoder
from rectune.examples import fit_prompt
from rectune.processes import gather, rank, world_size
from rectune.ranking import Ranking, join_rankings
from rectune.tasks import TaskRows
from rectune.template import Template


@dataclass(frozen=True)
class RankSettings:
    """The section `rank`.

    `beams` wide lists are searched, `k` of them are recommended; `scores` as in `beam_search`; prompts use `wording`
    of `template` and at most `max_length` tokens; `batch_size` rows are ranked at a time.
    """

    template: str
    wording: int = 0
    beams: int = 20
    k: int = 10
    scores: Scores = "full"
    max_length: int | None = None
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("beams", "k", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`rank.{name}` must be at least 1, got {getattr(self, name)}.")
        if self.k > self.beams:
            raise ValueError(
                f"`rank.k` is {self.k}, but only `rank.beams` = {self.beams} items are searched. Raise beams or lower k."
            )
        if self.wording < 0:
            raise ValueError(f"`rank.wording` must be 0 or more, got {self.wording}.")


class Ranker(Protocol):
    """What a method's `load` returns."""

    def rank(self, rows: TaskRows, *, hidden: Sequence[Sequence[int]] | None, shards: Path | None = None) -> Ranking:
        """Rank the catalogue for each row, the `hidden` items of a row left out."""

    def answer(self, rows: TaskRows) -> NDArray[np.float64]:
        """Probability of each answer for each row, shape (rows, answers)."""


@dataclass
class LanguageModelRanker:
    """Ranks with any causal language model. `names` are the token ids of each item's completion."""

    model: Any
    encoder: Encoder
    template: Template
    settings: RankSettings
    trie: Trie | None = None
    progress: bool = True
    _pad: int = field(init=False)

    def __post_init__(self) -> None:
        self._pad = int(self.encoder.tokenizer.pad_token_id)

    def prompts(self, rows: TaskRows) -> list[list[int]]:
        """Token ids of the prompt of each row, the oldest history left out where it does not fit."""
        room = self._room()
        made = []
        for i in range(len(rows)):
            what = f"row {int(rows.row[i])}"
            wording = self.settings.wording
            made.append(fit_prompt(self.encoder, self.template, wording, rows.variables(i), room=room, what=what)[0])
        return made

    def _room(self) -> int | None:
        """How many tokens a prompt may have: `rank.max_length`, and what the model has positions for."""
        limits = [self.settings.max_length, positions_of(self.model)]
        answer = self.trie.depth if self.trie is not None else 16
        known = [limits[0]] if limits[0] is not None else []
        known += [limits[1] - answer] if limits[1] is not None else []
        return min(known) if known else None

    def rank(self, rows: TaskRows, *, hidden: Sequence[Sequence[int]] | None, shards: Path | None = None) -> Ranking:
        """Rank the catalogue. Batches are the same whatever the number of processes; with `shards`, each finished
        batch is kept in that folder and not ranked again after a kill."""
        if self.trie is None:
            raise ValueError("this model chooses answers; it has no items to rank.")
        prompts = self.prompts(rows)
        own = []
        for number, batch in self._batches(prompts):
            file = shards / f"batch-{number:06d}.parquet" if shards else None
            if file is None or not file.exists():
                part = self._rank_batch(rows, prompts, batch, hidden)
                if file is None:
                    own.append(part)
                    continue
                part.save(file.with_suffix(".partial"))
                file.with_suffix(".partial").replace(file)
            own.append(Ranking.load(file))
        return join_rankings([part for parts in gather(own) for part in parts], rows.row.astype(np.int64))

    def _rank_batch(
        self, rows: TaskRows, prompts: list[list[int]], batch: NDArray[np.int64], hidden: Sequence[Sequence[int]] | None
    ) -> Ranking:
        assert self.trie is not None
        items, scores = beam_search(
            self.model,
            self.trie,
            [prompts[i] for i in batch],
            beams=self.settings.beams,
            scores=self.settings.scores,
            end=self.encoder.end_id if self.template.end else None,
            pad=self._pad,
            hidden=None if hidden is None else [hidden[i] for i in batch],
        )
        return Ranking(rows.row[batch].astype(np.int64), items, scores, np.zeros(len(batch), dtype=bool))

    def answer(self, rows: TaskRows) -> NDArray[np.float64]:
        """p(answer) / sum of p over the answers, one forward pass a row where answers are single tokens."""
        if not rows.answers:
            raise ValueError("this task has no fixed answers.")
        prompts = self.prompts(rows)
        example = rows.variables(0)
        answers = [
            self.encoder.completion_ids(
                self.template.completion(self.settings.wording, {**example, **answer}), end=False
            )
            for answer in rows.answers
        ]
        distinct_answers(answers)
        own: dict[int, NDArray[np.float64]] = {}
        for _, batch in self._batches(prompts):
            logp = answer_log_probabilities(self.model, [prompts[i] for i in batch], answers, pad=self._pad)
            own.update(zip(batch.tolist(), choice_probabilities(logp), strict=True))
        merged = {i: p for part in gather(own) for i, p in part.items()}
        return np.stack([merged[i] for i in range(len(rows))])

    def _batches(self, prompts: list[list[int]]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Batches of rows of like length; this process gets every world_size-th one."""
        from tqdm import tqdm

        order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
        cuts = range(self.settings.batch_size, len(order), self.settings.batch_size)
        batches = list(enumerate(np.split(order, list(cuts))))[rank() :: world_size()]
        yield from tqdm(
            batches, desc="ranking", unit="batch", disable=not self.progress or rank() > 0 or len(batches) < 8
        )


def positions_of(model: Any) -> int | None:
    """The longest sequence that the model has positions for, or None where its config does not say."""
    config = model.config.get_text_config()
    known = [getattr(config, name) for name in ("max_position_embeddings", "n_positions") if hasattr(config, name)]
    return int(known[0]) if known else None


def catalogue_trie(encoder: Encoder, template: Template, rows: TaskRows, wording: int, views: Sequence[Any]) -> Trie:
    """The trie of what every item tokenises to after the ranking prompt. `views`: one item view an item."""
    if rows.kind != "item":
        raise ValueError(f"the task of `{template.name}` does not name items.")
    names = [encoder.completion_ids(template.completion(wording, {"target": view}), end=template.end) for view in views]
    return build_trie(names, fixed_length=not template.end)
