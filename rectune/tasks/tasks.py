"""Tasks: what one row of a split asks of the model, as the variables of a template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rectune.indexing.item_index import ItemIndex
from rectune.log.rating_scale import scale_of
from rectune.log.split import Ints, Part, Rows, Split, windows
from rectune.prompts.template import clean_value, codes_value
from rectune.tasks.history import ChooseHistory, window

if TYPE_CHECKING:
    import polars as pl

Variables = dict[str, Any]


@dataclass(frozen=True)
class TaskRows:
    """The rows of a task in one part of a split.

    `row`: lasting row numbers, shape (rows,). `variables(i)`: what the template may use for row i; `history`, where
    there is one, is a list, oldest first. `kind` is 'item' when the model must name an item out of the catalogue,
    'answer' when it must choose one of `answers`, 'text' when it only writes. `target`: item code or position in
    `answers`, shape (rows,). `values`: the number that each answer stands for, lowest first, where it stands for one.
    `notes`: counts of what was left out, and who wrote the texts.
    """

    row: Ints
    variables: Callable[[int], Variables]
    kind: Literal["item", "answer", "text"]
    target: NDArray[Any]
    answers: tuple[Variables, ...] = ()
    values: tuple[float, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row)

    def take(self, positions: Ints) -> TaskRows:
        """Return the rows at `positions`, in that order."""
        return replace(
            self,
            row=self.row[positions],
            variables=lambda i: self.variables(int(positions[i])),
            target=self.target[positions],
        )


class ItemTexts:
    """The columns of an item (`title`, `brand`, …) as a template sees them, without the item's name."""

    def __init__(self, items: pl.DataFrame, *, max_characters: int = 300) -> None:
        self._limit = max_characters
        self._columns = {name: items[name].to_list() for name in items.columns if name != "item_id"}

    def __call__(self, item: int) -> Variables:
        """Return the texts of an item, each cut to `max_characters`; cut ones end with '…'."""
        return {name: self._cut(values[item]) for name, values in self._columns.items()}

    def _cut(self, text: str) -> str:
        text = clean_value(text)
        return text if len(text) <= self._limit else text[: self._limit - 1].rstrip() + "…"


class ItemViews:
    """What a template sees of an item: its texts (`title`, `brand`, …) and `name`, its name in the index."""

    def __init__(self, split: Split, index: ItemIndex, *, max_characters: int = 300) -> None:
        self._index = index
        self._texts = ItemTexts(split.log.items, max_characters=max_characters)

    def __call__(self, item: int) -> Variables:
        """Return the view of an item; texts are cut like those of `ItemTexts`."""
        codes = [int(code) for code in self._index.codes[item] if code >= 0]
        name = codes_value(codes) if codes else clean_value(self._index.titles[item])
        return {**self._texts(item), "name": name}


def next_item(
    split: Split, index: ItemIndex, part: Part, *, examples: Literal["targets", "windows"] = "targets"
) -> TaskRows:
    """Given the history, name the next item. Variables: `history`, `target`, and `user`, the user's token ('' where the
    index has none, and for a history from outside the log).

    `examples` says what a training example is: 'targets', one for each target with the history before it; or
    'windows', one for each window of `max_history` + 1 events, for a template that prints nothing but names and a
    method whose loss covers all of them (`completion_only_loss: false`).
    """
    rows = split.part(part)
    if part == "train" and examples == "windows":
        longest = int(max((r.stop - r.start).max() if len(r) else 1 for r in (split.train, split.test)))
        rows = windows(split, length=max(longest, 1))
    view, users = ItemViews(split, index), split.log.users.to_list()

    def variables(i: int) -> Variables:
        history = [view(int(item)) for item in split.history(rows, i)]
        code = index.user_code(users[int(rows.user[i])])
        user = "" if code is None else codes_value([code])
        return {"history": history, "target": view(int(split.log.item_codes[rows.target[i]])), "user": user}

    return TaskRows(rows.row, variables, "item", split.targets(rows))


def next_title(split: Split, index: ItemIndex, part: Part) -> TaskRows:
    """Given the history, write the title of the next item. Variables: `history`, `target`."""
    return replace(next_item(split, index, part), kind="text")


def next_description(split: Split, index: ItemIndex, part: Part) -> TaskRows:
    """Given the history, write the description of the next item. Variables: `history`, `target`.

    Rows whose target has no description are left out. Raises ValueError where the items have no such column.
    """
    items = split.log.items
    if "description" not in items.columns:
        raise ValueError(
            f"{split.log.source}: `next_description` needs the item column `description`; the items have "
            f"{', '.join(items.columns)}. Leave the task out or add the column."
        )
    rows = next_title(split, index, part)
    kept = np.flatnonzero((items["description"] != "").to_numpy()[rows.target])
    return replace(rows.take(kept), notes={"rows_without_description": len(rows) - len(kept)})


def next_item_from_titles(split: Split, index: ItemIndex, part: Part) -> TaskRows:
    """Like `next_item`, for a template that prints the history as titles. Variables: `history`, `target`."""
    return next_item(split, index, part)


def item_to_index(split: Split, index: ItemIndex, part: Part) -> TaskRows:
    """Given an item's texts, name it. Variables: `item`. Only for training: one row an item."""
    view = ItemViews(split, index)
    items = np.arange(split.log.n_items if part == "train" else 0)
    return TaskRows(items, lambda i: {"item": view(int(items[i]))}, "item", items)


def index_to_item(split: Split, index: ItemIndex, part: Part) -> TaskRows:
    """Given an item's name, write its title. Variables: `item`. Only for training: one row an item."""
    return replace(item_to_index(split, index, part), kind="text")


def like_or_dislike(
    split: Split, index: ItemIndex, part: Part, *, like_above: float = 3.0, history: ChooseHistory = window
) -> TaskRows:
    """From liked and disliked items, does the user like the target? Variables: `history`, `target`, `liked`.

    Every entry of `history` has `liked`: whether its rating is above `like_above`. The answers are `liked` false
    and true. `history` chooses the events, see `rectune.tasks.history`. Raises ValueError where the log has no ratings.
    """
    ratings = split.log.ratings
    if ratings is None:
        raise ValueError(f"{split.log.source}: `like_or_dislike` needs ratings, and this log has none.")
    likes = ratings > like_above
    rows = split.part(part)
    variables = _with_opinions(split, index, rows, history, lambda event: {"liked": bool(likes[event])})
    return TaskRows(
        rows.row, variables, "answer", likes[rows.target].astype(np.int64), ({"liked": False}, {"liked": True})
    )


def rating(
    split: Split,
    index: ItemIndex,
    part: Part,
    *,
    low: float | None = None,
    high: float | None = None,
    step: float = 1.0,
    history: ChooseHistory = window,
) -> TaskRows:
    """From rated items, which rating does the user give the target? Variables: `history`, `target`, `rating`, `lowest`,
    `highest`.

    Every entry of `history` has `rating`, a text such as '4'. The answers are the ratings from `low` to `high` by `step`,
    or, where neither is given, the different ratings of the log. `history` chooses the events, see `rectune.tasks.history`.
    Raises ValueError for a log without ratings, for ratings that are none of the answers, and for bounds that make no scale.
    """
    scale = scale_of(split.log, low=low, high=high, step=step)
    assert split.log.ratings is not None
    given, texts, rows = scale.positions(split.log.ratings, split.log.source), scale.texts, split.part(part)
    opinions = _with_opinions(split, index, rows, history, lambda event: {"rating": texts[given[event]]})
    ends = {"lowest": texts[0], "highest": texts[-1]}
    answers = tuple({"rating": text} for text in texts)
    return TaskRows(rows.row, lambda i: {**opinions(i), **ends}, "answer", given[rows.target], answers, scale.values)


def _with_opinions(
    split: Split, index: ItemIndex, rows: Rows, history: ChooseHistory, opinion: Callable[[int], Variables]
) -> Callable[[int], Variables]:
    """Variables of rows whose events carry an opinion: each entry of `history` has its own, the target's stands apart."""
    view, items, chosen = ItemViews(split, index), split.log.item_codes, history(split, rows)

    def variables(i: int) -> Variables:
        past = [{**view(int(items[event])), **opinion(int(event))} for event in chosen(i)]
        at = int(rows.target[i])
        return {"history": past, "target": view(int(items[at])), **opinion(at)}

    return variables


def history_split(split: Split, histories: list[list[int]]) -> Split:
    """Return a split whose test rows are the given histories (item codes, oldest first); their targets mean nothing.

    For recommending outside a log: every task renders such rows like any others.
    """
    import polars as pl

    lengths = np.array([len(h) for h in histories], dtype=np.int64)
    target = np.cumsum(lengths + 1) - 1
    first = target - lengths
    longest = split.notes.get("max_history") or int(max((split.test.stop - split.test.start).max(), 1))
    start = np.maximum(first, target - longest)  # as long as what the model was tuned on
    events = {
        "user": np.repeat(np.arange(len(histories), dtype=np.int32), lengths + 1),
        "item": np.array([i for h in histories for i in [*h, 0]], dtype=np.int32),
    }
    if split.log.ratings is not None:
        best = float(split.log.ratings.max())  # what is given as a history counts as liked
        events["rating"] = np.array([r for h in histories for r in [*[best] * len(h), 0.0]], dtype=np.float32)
    log = type(split.log)(
        interactions=pl.DataFrame(events),
        items=split.log.items,
        users=pl.Series([""] * len(histories), dtype=pl.String),
        source="the given histories",
    )
    number = np.arange(len(histories), dtype=np.int64)
    rows = Rows(row=number, user=number, first=first, start=start, stop=target, target=target)
    none = rows.take(np.zeros(0, dtype=np.int64))
    return Split(log=log, train=none, validation=none, test=rows, train_events=np.zeros(0, dtype=np.int64))
