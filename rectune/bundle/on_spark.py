"""Lists for everybody on a cluster of CPUs: Spark hands out the users, each of its Python workers holds the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.bundle.everybody import SHARD, check_columns, histories_in, lists_of
from rectune.bundle.recommender import MOST, Recommender

SCHEMA = "user string, items array<string>, scores array<float>, unknown int"
_held: dict[tuple[Any, ...], Recommender] = {}  # of this process


def rank_on_spark(
    users: Any, model: str, *, k: int = MOST, hide_seen: bool = True, allow: Sequence[str] | None = None, deny: Sequence[str] = (),
    together: int = SHARD, revision: str | None = None,
) -> Any:  # fmt: skip
    """The `k` best items of every row of a Spark table, as a Spark table in the order of its partitions; nothing is ranked before that is asked for.

    `users`: a table with the columns `user` and `items` (item ids, oldest first). `model`: a run folder or an export at a path that every executor
    sees, or a repository of the Hub. Columns of the result: `user`, `items`, best first, `scores`, and `unknown`, how many items of the history the catalogue does not
    hold; they count for nothing. A worker loads the model once and ranks `together` users at a time. The lists are those of `rectune rank`, scores but for the last
    place. Raises ValueError for columns that are not there, and a `k` that the model does not search; warns of items of `allow` or `deny` that it does not know.
    """
    check_columns(dict(users.dtypes), "array<", "the table of users: ")
    if together < 1:
        raise ValueError(f"`together`: got {together}, but at least 1 user is ranked at a time.")
    model = (
        str(Path(model).resolve()) if Path(model).is_dir() else model
    )  # workers stand in the folder where Java was started
    here = Recommender.from_pretrained(model, revision=revision, device="cpu")
    here.wish([], k)
    allowed = here.bundle.by_id.allowed(allow, deny)
    revision = here.bundle.commit or revision  # the same weights everywhere, whatever is pushed meanwhile
    asked = users.selectExpr("cast(user as string) as user", "cast(items as array<string>) as items")
    return asked.mapInArrow(
        _ranks(model, revision, k=k, hide_seen=hide_seen, allowed=allowed, together=together), SCHEMA
    )


def _ranks(
    model: str, revision: str | None, *, k: int, hide_seen: bool, allowed: NDArray[np.bool_] | None, together: int
) -> Callable[[Iterator[Any]], Iterator[Any]]:  # fmt: skip
    """What a worker does with the users of a partition, batches of Arrow."""

    def rank(batches: Iterator[Any]) -> Iterator[Any]:
        key = (model, revision)
        if key not in _held:
            _held.clear()
            _held[key] = Recommender.from_pretrained(model, revision=revision, device="cpu")
        recommender = _held[key]
        for part in _together(batches, together):
            if part["user"].null_count():
                raise ValueError("column `user`: a row has no user.")
            lists, unknown = lists_of(recommender, part["user"].to_list(), histories_in(part), k, hide_seen, allowed)
            yield from _for_spark(lists.with_columns(pl.Series("unknown", unknown, dtype=pl.Int32)))

    return rank


def _together(batches: Iterator[Any], most: int) -> Iterator[pl.DataFrame]:
    """Batches of Arrow as tables of `most` rows, the last one shorter."""
    import pyarrow

    held: list[Any] = []
    for batch in batches:
        held.append(batch)
        table = pyarrow.Table.from_batches(held)
        while table.num_rows >= most:
            yield _frame(table.slice(0, most))
            table = table.slice(most)
        held = table.to_batches()
    if held:
        yield _frame(pyarrow.Table.from_batches(held))


def _frame(table: Any) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _for_spark(lists: pl.DataFrame) -> list[Any]:
    """A table in the types of Arrow that Spark reads."""
    import pyarrow

    texts, numbers = pyarrow.list_(pyarrow.string()), pyarrow.list_(pyarrow.float32())
    fields = [("user", pyarrow.string()), ("items", texts), ("scores", numbers), ("unknown", pyarrow.int32())]
    return list(lists.to_arrow().cast(pyarrow.schema(fields)).to_batches())
