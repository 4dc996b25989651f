"""A tuned recommender: everything that recommending needs, made of a run or read from a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.decoding.language_model import LanguageModelRanker, Ranker, RankSettings, catalogue_trie
from rectune.decoding.trie import Trie
from rectune.indexing.item_index import ItemIndex
from rectune.log.catalogue import Catalogue
from rectune.log.split import Split
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import Template
from rectune.recipe.calls import Call
from rectune.run.new_items import names_for
from rectune.tasks.asked_histories import Outside, event_less
from rectune.tasks.rows import TaskRows
from rectune.tasks.task_calls import TaskCall
from rectune.tasks.views import ItemViews
from rectune.vectors.item_vectors import Fitted, ItemVectors

# (split, weight or None for its own) -> what `Shelf.prior` takes for the test rows of the split
PriorOf = Callable[[Split, float | None], Callable[[NDArray[np.int64]], NDArray[np.float32]] | None]


@dataclass(frozen=True)
class Bundle:
    """A tuned recommender. `name`: the folder or repository that it came from; `kind`: whether it lists items or answers about one; `outside`: its items, and what
    is known of histories; `task`: what a row asks; `vectors`: where the task chooses histories by them; `prior`: see `PriorOf`, `prior_weight` its own
    weight; `sources`, `fitted`: what gives new items vectors, and what that learned; `commit`: of a download from the Hub; `report`: the page of its report; `recipe`: the name of
    its recipe; `chooses`: whether its task chooses among candidates that have to be given.
    """

    name: str
    kind: Literal["item", "answer", "text"]
    outside: Outside
    index: ItemIndex
    encoder: Encoder
    template: Template
    rank: RankSettings
    trie: Trie | None
    task: TaskCall
    ranker: Ranker
    vectors: ItemVectors | None = None
    prior: PriorOf | None = None
    prior_weight: float = 0.0
    sources: tuple[Call, ...] = ()
    fitted: tuple[Fitted, ...] = ()
    commit: str | None = None
    report: Path | None = None
    recipe: str = ""
    chooses: bool = False

    @property
    def items(self) -> pl.DataFrame:
        """The catalogue: `item_id`, `title` and the other columns that prompts speak of."""
        return self.outside.items

    @cached_property
    def by_id(self) -> Catalogue:
        """Items by their ids."""
        return Catalogue(event_less(self.items).log)

    @cached_property
    def by_title(self) -> Catalogue:
        """Items by their titles."""
        return Catalogue(event_less(self.items).log, "title")

    def rows(self, split: Split) -> TaskRows:
        """The rows of the task for histories from outside."""
        return self.task.rows(split, self.index, "test", self.vectors)

    def with_items(self, new: pl.DataFrame) -> Bundle:
        """The same with new items behind its own, named by its index. Raises ValueError where the index names none, and for a ranker that
        searches no trie."""
        if not isinstance(self.ranker, LanguageModelRanker) or self.trie is None:
            raise ValueError(
                f"{self.recipe}: its model ranks without names of items, so it takes no new ones without tuning."
            )
        codes = names_for(new, self.index, self.sources, self.fitted)
        index = replace(self.index, codes=np.vstack([self.index.codes, codes]))
        outside = replace(self.outside, items=pl.concat([self.items, new.select(self.items.columns)]))
        view = ItemViews(event_less(outside.items), index)
        wording = self.rank.wording
        trie = catalogue_trie(self.encoder, self.template, wording, view, index, called=view.called)
        ranker = LanguageModelRanker(self.ranker.model, self.encoder, self.template, self.rank, trie, progress=False)
        return replace(self, outside=outside, index=index, trie=trie, ranker=ranker)
