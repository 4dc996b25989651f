"""`Recommender`: lists and opinions from a bundle, a run folder or a repository of the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.bundle.bundle import Bundle
from rectune.decoding.language_model import LanguageModelRanker
from rectune.decoding.ranking import Ranking
from rectune.decoding.shelf import Shelf
from rectune.log.catalogue import Catalogue
from rectune.log.split import Split
from rectune.run.new_items import checked_items, read_items
from rectune.tasks.asked_histories import Event

By = Literal["item_id", "title"]
History = list[str] | tuple[str, ...]
Rated = Sequence[str | tuple[str, float]]
MOST = 10  # items in a list, where nobody says


@dataclass(frozen=True)
class Recommendation:
    """An item of a list. `score`: the model's log-probability of its name, with the prior's where there is one; `proven`: whether its list is
    the model's exact best; `commit`: of the repository that it came from, None for a local folder."""

    item_id: str
    title: str
    score: float
    proven: bool
    commit: str | None = None


@dataclass(frozen=True)
class Wish:
    """What one list is asked for, in item codes: `hidden` must not be listed, `only` alone may be (None: all), `offered` are the candidates that were given; see
    `Recommender.recommend`."""

    history: tuple[int, ...]
    k: int
    hidden: frozenset[int]
    only: frozenset[int] | None
    user: str = ""
    prior_weight: float | None = None
    offered: frozenset[int] | None = None


@dataclass(frozen=True)
class Opinion:
    """What a model answers about an item. `score`: the probability of Yes, or the expected rating; `chances`: of each answer."""

    item_id: str
    title: str
    score: float
    chances: dict[str, float]
    commit: str | None = None


class Recommender:
    """Recommends from what `rectune train`, `rectune export` or `rectune push` left."""

    def __init__(self, bundle: Bundle) -> None:
        if isinstance(bundle.ranker, LanguageModelRanker):
            bundle.ranker.progress = False
        self.bundle = bundle

    @staticmethod
    def from_pretrained(
        repo_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        device: str = "auto",
        dtype: str | None = None,
    ) -> Recommender:
        """Load a run folder, a bundle, or a repository of the Hub ('user/repo').

        `revision`, `token`, `cache_dir`, `local_files_only`: as in huggingface_hub. `device`: 'auto', 'cpu' or 'cuda'; `dtype`: of the weights where it is to be
        another than the recipe's, e.g. 'float32'. Raises FileNotFoundError where nothing is there, ValueError for a folder that is not as it was written, of
        a newer rectune, or one that names code outside of rectune.
        """
        from rectune.bundle.opened import opened

        return Recommender(
            opened(
                repo_or_folder, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only,
                device=device, dtype=dtype,
            )
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------------------------- items

    @property
    def items(self) -> pl.DataFrame:
        """The catalogue, one row an item: `item_id`, `title`, and the other columns that prompts speak of."""
        return self.bundle.items

    @property
    def kind(self) -> Literal["item", "answer", "text"]:
        """'item' where it lists items, 'answer' where it answers about one."""
        return self.bundle.kind

    @property
    def max_k(self) -> int:
        """The longest list."""
        return min(self.bundle.rank.beams, self.items.height)

    def search_items(self, text: str, k: int = MOST) -> list[dict[str, Any]]:
        """At most `k` items whose titles hold every word of `text`, in whatever case, those that begin with it first."""
        words = text.casefold().split()
        if not words:
            return self.items.head(k).to_dicts()
        title = pl.col("title").str.to_lowercase()
        holds = pl.all_horizontal([title.str.contains(word, literal=True) for word in words])
        begins = title.str.starts_with(" ".join(words))
        found = self.items.with_row_index("row").filter(holds)
        return found.sort([~begins, pl.col("title").str.len_chars(), "row"]).head(k).drop("row").to_dicts()

    def add_items(self, frame: pl.DataFrame | Sequence[dict[str, Any]] | str | Path) -> int:
        """Name new items by the index, without tuning; from then on they are listed, too. Returns how many there were.

        `frame`: `item_id`, `title` and the catalogue's other columns, as a table, dicts, or a .csv, .jsonl or .parquet file. In memory only: for a run
        folder `rectune index add` keeps them. Raises ValueError for a known or repeated id, and for an index that cannot name new items.
        """
        if isinstance(frame, str | Path):
            new = read_items(Path(frame), self.items)
        else:
            new = checked_items(pl.DataFrame(frame), self.items, source="the new items")
        self.bundle = self.bundle.with_items(new)
        return new.height

    # -------------------------------------------------------------------------------------------------------- answers

    @overload
    def recommend(
        self, history: History, k: int | None = ..., *, hide_seen: bool = ..., allow: Sequence[str] | None = ...,
        deny: Sequence[str] = ..., candidates: Sequence[str] | None = ..., by: By = ..., users: str | None = ...,
        prior_weight: float | None = ...,
    ) -> list[Recommendation]: ...  # fmt: skip

    @overload
    def recommend(
        self, history: Sequence[History], k: int | None = ..., *, hide_seen: bool = ..., allow: Sequence[str] | None = ...,
        deny: Sequence[str] = ..., candidates: Sequence[Sequence[str]] | None = ..., by: By = ...,
        users: Sequence[str] | None = ..., prior_weight: float | None = ...,
    ) -> list[list[Recommendation]]: ...  # fmt: skip

    def recommend(
        self,
        history: Any,
        k: int | None = None,
        *,
        hide_seen: bool = True,
        allow: Sequence[str] | None = None,
        deny: Sequence[str] = (),
        candidates: Any = None,
        by: By = "item_id",
        users: Any = None,
        prior_weight: float | None = None,
    ) -> Any:
        """The `k` best items (10, or as many as are searched) after one history, a list of item ids, oldest first (`by='title'`: titles), or after
        each of many, a list of lists. A list is shorter where fewer items may be listed.

        `allow` and `deny`: ids of items that alone may, or must not, be listed (stock, age, region); ids that the catalogue does not hold count for
        nothing, with a warning. `candidates`: the ids that are to be ranked, for each history its own. `users`: whose history each is, for a
        model whose prompts have user tokens. `prior_weight`: another weight of the prior; 0 leaves it out. Scores don't depend on
        what may be listed. Raises ValueError for an unknown item of a history or of the candidates (with near misses), for a `k` above
        `max_k`, or when no item may be listed.
        """
        if _is_one(history):
            some, user = (None if given is None else [given] for given in (candidates, users))
            (found,) = self._lists([history], k, hide_seen, allow, deny, some, by, user, prior_weight)
            return found
        return self._lists(history, k, hide_seen, allow, deny, candidates, by, users, prior_weight)

    def _lists(
        self, histories: Sequence[History], k: int | None, hide_seen: bool, allow: Sequence[str] | None, deny: Sequence[str],
        candidates: Sequence[Sequence[str]] | None, by: By, users: Sequence[str] | None, prior_weight: float | None,
    ) -> list[list[Recommendation]]:  # fmt: skip
        for what, given in (("candidates for", candidates), ("users for", users)):
            if given is not None and len(given) != len(histories):
                raise ValueError(f"there are {len(histories)} histories, but {what} {len(given)}.")
        wishes = [
            self.wish(
                history, k, hide_seen=hide_seen, candidates=None if candidates is None else candidates[n], by=by,
                user="" if users is None else users[n], prior_weight=prior_weight,
            )
            for n, history in enumerate(histories)
        ]  # fmt: skip
        return self.lists(wishes, allowed=self.bundle.by_id.allowed(allow, deny))

    def wish(
        self, history: History, k: int | None = None, *, hide_seen: bool = True, allow: Sequence[str] | None = None, deny: Sequence[str] = (),
        candidates: Sequence[str] | None = None, by: By = "item_id", user: str = "", prior_weight: float | None = None,
    ) -> Wish:  # fmt: skip
        """What `recommend` is asked for one history, checked; raises what `recommend` raises. Here an unknown id of `allow` or `deny` counts for
        nothing without a word."""
        bundle = self.bundle
        if bundle.kind != "item":
            raise ValueError(
                f"{bundle.recipe}: this model answers about one item (Yes/No, a rating); it lists none. Ask with `score`."
            )
        if candidates is None and bundle.chooses:
            raise ValueError(
                f"{bundle.recipe}: this model chooses among candidates, which its prompt lists. Give `candidates`, the ids to choose from."
            )
        k = min(MOST, self.max_k) if k is None else k
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= self.max_k:
            raise ValueError(
                f"k = {k}, but it must be from 1 to {self.max_k}: {bundle.rank.beams} beams are searched (`rank.beams`), and the "
                f"catalogue holds {self.items.height:,} items."
            )
        codes = self._named(by).codes(history)
        only = None if candidates is None else set(bundle.by_id.codes(candidates))
        offered = None if only is None else frozenset(only)
        if allow is not None:
            may = bundle.by_id.known(allow)
            only = may if only is None else only & may
        if only is not None and not only:
            raise ValueError("no item may be listed: none of the candidates or of the allowed is in the catalogue.")
        hidden = {*(codes if hide_seen else ()), *bundle.by_id.known(deny)}
        if len(hidden) >= self.items.height:
            raise ValueError("no item may be listed: all of them are denied or in the history.")
        wish = Wish(
            tuple(codes), k, frozenset(hidden), None if only is None else frozenset(only), user, prior_weight, offered
        )
        if bundle.chooses and isinstance(bundle.ranker, LanguageModelRanker):
            bundle.ranker.prompts(bundle.rows(self._asked([wish])), [0])  # candidates for which its prompt has no room
        return wish

    def lists(self, wishes: Sequence[Wish], *, allowed: NDArray[np.bool_] | None = None) -> list[list[Recommendation]]:
        """The lists that were asked for, ranked together. `allowed`: (items,), what all of them may list."""
        found: list[list[Recommendation]] = [[] for _ in wishes]
        groups: dict[tuple[bool, float | None], list[int]] = {}
        for n, wish in enumerate(wishes):
            groups.setdefault((wish.only is None, wish.prior_weight), []).append(n)
        for (_, weight), group in groups.items():
            for n, listed in zip(group, self._ranked([wishes[n] for n in group], allowed, weight), strict=True):
                found[n] = listed
        return found

    def prior_list(
        self, history: History, k: int | None = None, *, hide_seen: bool = True, by: By = "item_id"
    ) -> list[Recommendation]:
        """What the prior alone would list after one history, by its own score; [] where there is none. Of equal scores the item first that stands
        first in the catalogue."""
        wish = self.wish(history, k, hide_seen=hide_seen, by=by)
        asked = self.bundle.outside.split([wish.history])
        scores = None if self.bundle.prior is None else self.bundle.prior(asked, 1.0)
        if scores is None:
            return []
        (row,) = scores(np.arange(1)).astype(np.float64)
        row[sorted(wish.hidden)] = -np.inf
        best = [int(item) for item in np.argsort(-row, kind="stable")[: wish.k] if row[item] > -np.inf]
        ids, titles = self.items["item_id"], self.items["title"]
        return [Recommendation(ids[item], titles[item], float(row[item]), True, self.bundle.commit) for item in best]

    def rank(
        self, wishes: Sequence[Wish], allowed: NDArray[np.bool_] | None = None, weight: float | None = None
    ) -> Ranking:
        """The lists of wishes that all have candidates, or none of which has any, as item codes; as long as is searched. `weight`: of the prior."""
        bundle = self.bundle
        only = None if wishes[0].only is None else [sorted(wish.only or ()) for wish in wishes]
        asked = self._asked(wishes)
        shelf = Shelf(
            allowed=allowed,
            hidden=[sorted(wish.hidden) for wish in wishes],
            only=only,
            prior=None if bundle.prior is None else bundle.prior(asked, weight),
        )
        return bundle.ranker.rank(bundle.rows(asked), shelf)

    def _asked(self, wishes: Sequence[Wish]) -> Split:
        """Their histories, and the candidates that their prompts list."""
        histories, users = [wish.history for wish in wishes], [wish.user for wish in wishes]
        offered = [sorted(wish.offered) for wish in wishes if wish.offered is not None]
        return self.bundle.outside.split(histories, users, candidates=offered if len(offered) == len(wishes) else None)

    def _ranked(
        self, wishes: Sequence[Wish], allowed: NDArray[np.bool_] | None, weight: float | None
    ) -> list[list[Recommendation]]:
        bundle, ranking = self.bundle, self.rank(wishes, allowed, weight)
        ids, titles = self.items["item_id"], self.items["title"]
        return [
            [
                Recommendation(ids[int(item)], titles[int(item)], float(score), bool(exact), bundle.commit)
                for item, score in zip(row[: wish.k], scores[: wish.k], strict=True)
                if item >= 0
            ]
            for wish, row, scores, exact in zip(wishes, ranking.items, ranking.scores, ranking.exact, strict=True)
        ]

    @overload
    def score(self, history: Rated, item: str, *, by: By = ...) -> Opinion: ...

    @overload
    def score(self, history: Sequence[Rated], item: list[str] | tuple[str, ...], *, by: By = ...) -> list[Opinion]: ...

    def score(self, history: Any, item: Any, *, by: By = "item_id") -> Any:
        """What a user with this history would say of an item: the probability of Yes, or the expected rating; for one history and item, or
        for many of both.

        An entry of a history is an item, which counts as liked best, or a pair of it and an opinion: True or False, or a rating. Raises
        ValueError for a model that lists items, an unknown item, and a rating that the log did not have.
        """
        one = isinstance(item, str)
        histories, items = ([history], [item]) if one else (history, item)
        bundle = self.bundle
        if bundle.kind != "answer":
            raise ValueError(f"{bundle.recipe}: this model lists items; it has no answers. Ask with `recommend`.")
        if len(histories) != len(items):
            raise ValueError(f"there are {len(histories)} histories, but {len(items)} items to score.")
        named = self._named(by)
        targets = named.codes(items)
        rows = bundle.rows(bundle.outside.split([self._events(named, past) for past in histories], targets=targets))
        chances = bundle.ranker.answer(rows)
        answers = [_said(answer) for answer in rows.answers]
        score = chances @ np.array(rows.values) if rows.values else chances[:, -1]
        ids, titles = self.items["item_id"], self.items["title"]
        found = [
            Opinion(ids[at], titles[at], float(value), dict(zip(answers, map(float, of), strict=True)), bundle.commit)
            for at, value, of in zip(targets, score, chances, strict=True)
        ]
        return found[0] if one else found

    def _events(self, named: Catalogue, history: Rated) -> list[Event]:
        """Item codes with the ratings that stand for the opinions."""
        ratings = self.bundle.outside.ratings
        events: list[Event] = []
        for entry in history:
            name, opinion = (entry, True) if isinstance(entry, str) else entry
            (code,) = named.codes([name])
            rating = (ratings[-1] if opinion else ratings[0]) if isinstance(opinion, bool) else float(opinion)
            if not ratings[0] <= rating <= ratings[-1]:
                raise ValueError(
                    f"a rating of `{name}` is {rating:g}; they run from {ratings[0]:g} to {ratings[-1]:g}."
                )
            events.append((code, rating))
        return events

    def _named(self, by: By) -> Catalogue:
        if by not in ("item_id", "title"):
            raise ValueError(f"`by` is 'item_id' or 'title', got {by!r}.")
        return self.bundle.by_id if by == "item_id" else self.bundle.by_title


def _is_one(history: Any) -> TypeGuard[History]:
    """Whether this is one history, not many."""
    if isinstance(history, str):
        raise TypeError(f"a history is a list of items, got the text {history!r}. Write [{history!r}].")
    return not len(history) or isinstance(history[0], str)


def _said(answer: dict[str, Any]) -> str:
    """What an answer is called: Yes or No, or what it says."""
    (value,) = answer.values()
    return ("Yes" if value else "No") if isinstance(value, bool) else str(value)
