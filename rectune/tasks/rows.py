"""The rows of a task: what one row of a split asks of the model, as the variables of a template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from rectune.indexing.item_index import ItemIndex
from rectune.log.shown import ShownBefore
from rectune.log.split import Histories, Ints, Part, Split
from rectune.runtime.ragged import Ragged
from rectune.tasks.views import ItemViews, Variables


@dataclass(frozen=True)
class TaskRows:
    """The rows of a task in one part of a split.

    `row`: lasting row numbers, shape (rows,). `variables(i)`: what the template may use for row i; `history`, where
    there is one, is a list, oldest first. `kind` is 'item' when the model must name an item out of the catalogue,
    'answer' when it must choose one of `answers`, 'text' when it only writes. `target`: item code or position in
    `answers`, shape (rows,). `values`: the number that each answer stands for, lowest first, where it stands for one.
    `notes`: counts of what was left out, and who wrote the texts. `history(i)`: codes of the items that the prompt of row i shows, oldest
    first, for a ranker that reads no text; None where the task has no such list. `views`: what a template sees of an item, where `history(i)` and
    `target` are all that the texts of a row come from, as `history` and `target`, views of these items, and `user`, the token at place `users` of the
    vocabulary, (rows,), -1 and '' for none. `group`, shape (rows,): rows of one number begin
    alike; they have one wording in an epoch, and are trained together by a method that reads what they share once. `candidates`: item codes of what
    alone each row may name; None where that is the catalogue. `shown(i)`: items that the user of row i was shown until its target; None where
    that is not known.
    """

    row: Ints
    variables: Callable[[int], Variables]
    kind: Literal["item", "answer", "text"]
    target: NDArray[Any]
    answers: tuple[Variables, ...] = ()
    values: tuple[float, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)
    history: Histories | None = None
    views: ItemViews | None = None
    users: Ints | None = None
    group: Ints | None = None
    candidates: Ragged | None = None
    shown: ShownBefore | None = None

    @property
    def judged(self) -> str:
        """What an evaluator must judge: 'item' (the catalogue), 'choice' (candidates), 'answer', 'rating' (answers that are numbers) or 'text'."""
        if self.kind == "item" and self.candidates is not None:
            return "choice"
        return "rating" if self.values else self.kind

    def __len__(self) -> int:
        return len(self.row)

    def take(self, positions: Ints) -> TaskRows:
        """Return the rows at `positions`, in that order."""
        return replace(
            self,
            row=self.row[positions],
            variables=lambda i: self.variables(int(positions[i])),
            target=self.target[positions],
            group=None if self.group is None else self.group[positions],
            users=None if self.users is None else self.users[positions],
            history=None if self.history is None else self.history.take(positions),
            candidates=None if self.candidates is None else self.candidates.take(positions),
            shown=None if self.shown is None else self.shown.take(positions),
        )


class Task(Protocol):
    """What a recipe names as a task; it is given the function of its section `history` where it names one."""

    def __call__(
        self, split: Split, index: ItemIndex, part: Part, *, history: Callable[..., Any] = ..., **keys: Any
    ) -> TaskRows:
        """The rows of one part of a split."""
