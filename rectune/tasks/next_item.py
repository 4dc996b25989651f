"""Given the history, name the next item."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Ints, Part, Rows, Split, windows
from rectune.prompts.template import codes_value
from rectune.tasks.rows import TaskRows
from rectune.tasks.views import ItemViews, Variables


def next_item(
    split: Split, index: ItemIndex, part: Part, *, examples: Literal["targets", "tree", "windows"] = "targets"
) -> TaskRows:
    """Given the history, name the next item. Variables: `history`, `target`, and `user`, the user's token ('' where the
    index has none, and for a history from outside the log).

    `examples` says what a training example is: 'targets', one for each target with the history before it; 'tree', the same
    examples, those of a user together, with `sft` reading what they share once: same loss, fewer tokens; or 'windows', one for each window of `max_history` + 1 events, for a template that prints nothing but names and a
    method whose loss covers all of them (`completion_only_loss: false`).
    """
    rows = split.part(part)
    if part == "train" and examples == "windows":
        longest = int(max((r.stop - r.start).max() if len(r) else 1 for r in (split.train, split.test)))
        rows = windows(split, length=max(longest, 1))
    view, users = ItemViews(split, index), _user_tokens(split, index, rows)
    shown = split.histories(rows)

    def variables(i: int) -> Variables:
        history = [view(int(item)) for item in shown(i)]
        user = "" if users is None or users[i] < 0 else codes_value([int(users[i])])
        return {"history": history, "target": view(int(split.log.item_codes[rows.target[i]])), "user": user}

    return TaskRows(
        rows.row,
        variables,
        "item",
        split.targets(rows),
        history=shown,
        views=view,
        users=users,
        group=rows.user if part == "train" and examples == "tree" else None,
        shown=split.shown(rows),
    )


def _user_tokens(split: Split, index: ItemIndex, rows: Rows) -> Ints | None:
    """The place of each row's user token in the vocabulary, (rows,), -1 for none; None where users have none."""
    if not index.user_tokens:
        return None
    shown, of = np.unique(rows.user, return_inverse=True)
    codes = [index.user_code(name) for name in split.log.users[shown].to_list()]
    return np.array([-1 if code is None else code for code in codes], dtype=np.int64)[of]
