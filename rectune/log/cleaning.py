"""Raw tables checked, cleaned and encoded into a log, piece by piece: of texts only one piece and the different ids are ever in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.log.ids import Ids
from rectune.log.item_table import catalogue_of, codes_of, places_of
from rectune.log.log import Log, warn
from rectune.log.shown import Shown
from rectune.log.times import Numbers

Repeats = Literal["keep", "first", "last"]
MISSING = ("na", "n/a", "nan", "null", "none", "nil", "undefined", "unknown", "missing", "-", "#n/a", "(null)", "\\n")
LARGE, MANY = 0.3, 10  # of so many users or items, one with that share of all events is told of
PIECE = 4_000_000  # rows of a table that are text at once


@dataclass
class _Events:
    """Events as arrays of equal length; users and items are numbers in the order of their first row."""

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    time: NDArray[np.float64] | None
    rating: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.user)

    def keep(self, rows: NDArray[Any]) -> None:
        """Keep these rows (a mask, or positions in the order that they shall have), one column after the other."""
        for one in fields(self):
            values = getattr(self, one.name)
            if values is not None:
                setattr(self, one.name, values[rows])


def make_log(
    interactions: pl.DataFrame | Iterable[pl.DataFrame],
    items: pl.DataFrame | None = None,
    *,
    source: str,
    user_core: int = 0,
    item_core: int = 0,
    repeats: Repeats = "keep",
    warn_unordered: bool = True,
    time_format: str | None = None,
) -> Log:
    """Check, clean and encode raw tables into a `Log`.

    `interactions` needs `user` and `item` (any type, read as text) and may have `time` (number) and `rating`
    (number); without `time` the order of its rows is the order of events. It may come in pieces, tables of the same columns, which
    are read once, one after the other. `items` needs `item_id` and may have
    `title` and other columns; lists become one text joined by ', ', HTML entities are unescaped. Events are sorted
    by user and time; events of one user with equal times keep the order of the rows. The same user, item and time
    twice is one event. White space around ids is left out; `time_format` is that of `as_number`. `user_core` and `item_core` remove users and items with fewer events, to the fixed point; with
    `item_core` 0 items that nobody touched stay in the catalogue.
    At its peak, while it is sorted, an event with its time takes about 48 bytes, its share of the ids included (measured by
    benchmarks/data.py, a user for ten events); of texts one piece is in memory, which takes some 200 MB.
    Raises ValueError naming `source` for missing columns, nulls, NaN or non-numeric times and ratings, and a log
    that is or becomes empty, and ids of log and items that do not match. Warns once (`LogWarning`) for each thing that is probably a
    mistake; what it said is kept in the log's `notes`.
    """
    notes: dict[str, Any] = {}
    pieces = interactions.iter_slices(PIECE) if isinstance(interactions, pl.DataFrame) else interactions
    events, users, names = _encoded(pieces, source, time_format)
    backward = _in_order(events, source, notes)
    _look_at_ids("user", users, events.user, source, notes)
    _look_at_ids("item", names, events.item, source, notes)
    if backward and warn_unordered:
        tell_backward(backward, source, notes)
    if events.time is None and warn_unordered:
        _look_at_order(events, names, source, notes)
    if repeats != "keep":
        events.keep(_once(events, repeats))
    if (kept := _core(events.user, events.item, user_core, item_core)) is not None:
        events.keep(kept)
    if not len(events):
        raise ValueError(f"{source}: no event is left at user_core={user_core}, item_core={item_core}. Lower them.")
    return _log(events, users, names, items, source, notes, everything=item_core <= 0)


def with_shown(log: Log, rows: Iterable[pl.DataFrame], *, source: str, time_format: str | None = None) -> Log:
    """The log with what its users were shown: tables of `user`, `item` and `time` in pieces, of the form that `make_log` reads, in any order.

    Rows of users and items that the log does not hold are left out, and counted in its `notes`. Raises ValueError for a log without times, for what
    `make_log` refuses in a column, where no row is left, and where none was shown between the first and the last event.
    """
    if log.times is None:
        raise ValueError(
            f"{source}: what was shown is told by its time from what was shown later. Name the column of the `time`."
        )
    events, users, names = _encoded(rows, source, time_format)
    if events.time is None:
        raise ValueError(f"{source}: rows of what was shown need a `time`.")
    user, item = places_of(users, log.users), codes_of(names, log.items)
    everything = len(events)
    events.user, events.item = user[events.user], item[events.item]
    events.keep((events.user >= 0) & (events.item >= 0))
    if not len(events):
        raise ValueError(
            f"{source}: of {everything:,} rows of what was shown none is of a user and an item of the log."
        )
    assert events.time is not None
    if events.time.min() > log.times.max() or events.time.max() < log.times.min():
        raise ValueError(
            f"{source}: all of it was shown {'after the last' if events.time.min() > log.times.max() else 'before the first'} event of the log. Are times of "
            "both in one unit and one form?"
        )
    events.keep(_by_user_and_time(events.user, events.time))
    notes = {"shown": len(events), "shown_of_others": everything - len(events)}
    return replace(log, notes={**log.notes, **notes}, shown=Shown(events.user, events.item, events.time, source))


def k_core(table: pl.DataFrame, *, user_core: int, item_core: int) -> pl.DataFrame:
    """Remove users with fewer than `user_core` and items with fewer than `item_core` events until none is left."""
    users, items = (table[name].rank("dense").to_numpy().astype(np.int32) for name in ("user", "item"))
    kept = _core(users, items, user_core, item_core)
    return table if kept is None else table.filter(pl.Series(kept))


def from_sequences(
    users: Sequence[str], sequences: Sequence[Sequence[str]], items: pl.DataFrame | None, *, source: str, **core: Any
) -> Log:
    """Make a log without times out of one ordered list of item ids a user."""
    lengths = [len(sequence) for sequence in sequences]
    table = pl.DataFrame(
        {
            "user": np.repeat(np.array(users, dtype=object), lengths).tolist(),
            "item": [item for sequence in sequences for item in sequence],
        },
        schema={"user": pl.String, "item": pl.String},
    )
    return make_log(table, items, source=source, **core)


def _encoded(
    pieces: Iterable[pl.DataFrame], source: str, time_format: str | None
) -> tuple[_Events, pl.Series, pl.Series]:
    """All pieces as numbers, and the ids of users and items. Raises ValueError for what is no table of events."""
    ids = {"user": Ids(), "item": Ids()}
    codes: dict[str, list[NDArray[np.int32]]] = {"user": [], "item": []}
    numbers: dict[str, Numbers] = {}
    empty: dict[str, tuple[int, int]] = {}  # of each column: how many rows, the first of them
    rows = 0
    for piece in pieces:
        for column in ids:
            if column not in piece.columns:
                raise ValueError(f"{source}: the log has no column `{column}`. It has: {', '.join(piece.columns)}.")
        if not rows:
            forms = {"time": time_format, "rating": None}
            numbers = {c: Numbers(f"{source}: `{c}`", forms[c]) for c in forms if c in piece.columns}
        for column in (*ids, *numbers):
            if count := piece[column].null_count():
                before, first = empty.get(column, (0, rows + int(piece[column].is_null().arg_true()[0]) + 1))
                empty[column] = (before + count, first)
        rows += piece.height
        if empty:
            continue  # no log comes of it: what is left is counted
        for column, known in ids.items():
            codes[column].append(known.encode(piece[column].cast(pl.String)))
        for column, read in numbers.items():
            read.add(piece[column])
    if not rows:
        raise ValueError(f"{source}: the log is empty.")
    _refuse_empty(empty, source)
    kinds = {"time": pl.Float64, "rating": pl.Float32}
    found = {c: known.stripped(np.concatenate(codes.pop(c))) for c, known in ids.items()}
    for column, (of_rows, names) in found.items():
        if len(blank := (names == "").arg_true()):
            at = np.flatnonzero(of_rows == blank[0])
            _refuse_empty({column: (len(at), int(at[0]) + 1)}, source)
    (user, users), (item, items) = found.values()
    time, rating = (
        numbers[c].whole().cast(kinds[c]).to_numpy() if c in numbers else None for c in kinds
    )  # fmt: skip
    return _Events(user, item, time, rating), users, items


def _refuse_empty(columns: dict[str, tuple[int, int]], source: str) -> None:
    """Raise ValueError for the first column that is empty in some rows; of each: in how many, and the first of them."""
    for column, (count, first) in columns.items():
        raise ValueError(f"{source}: `{column}` is empty in {count} rows, the first is data row {first}.")


def _in_order(events: _Events, source: str, notes: dict[str, Any]) -> int:
    """Sort by user and time, each event once; how many events stood before the one of the same user that they follow in time."""
    if events.time is None:
        events.keep(_by(events.user))
        return 0
    order = _by_user_and_time(events.user, events.time)
    events.keep(order)
    twice = _repeated(events.user, events.time, events.item)
    notes["duplicate_events"] = len(twice)
    if len(twice):
        tell_twice(len(twice), source, notes)
        single = np.ones(len(order), dtype=bool)
        single[twice] = False
        events.keep(single)
        order = order[single]
    return _falls(events.user, order)


def _by_user_and_time(users: NDArray[np.int32], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """The positions in the order of user and time, equal ones as they stand."""
    if (times[1:] >= times[:-1]).all():
        return _by(users)
    by_time = _by_time(times)
    return by_time[_by(users[by_time])]


def _by(codes: NDArray[Any]) -> NDArray[np.int64]:
    """The positions in the order of whole numbers from 0, equal ones as they stand: one sort, several times as fast as a stable argsort."""
    keys = codes.astype(np.int64)
    bits = max(len(codes).bit_length(), 1)
    keys <<= bits
    keys |= np.arange(len(codes))
    keys.sort()
    keys &= (1 << bits) - 1
    return keys


def _by_time(times: NDArray[np.float64]) -> NDArray[np.int64]:
    """The positions in the order of time, equal ones as they stand."""
    begin = times.min()
    span, bits = float(times.max() - begin), len(times).bit_length()
    if span < 2 ** (62 - bits) and bool((np.floor(times) == times).all()):
        return _by((times - begin).astype(np.int64))
    return np.argsort(times, kind="stable")


def _falls(users: NDArray[np.int32], values: NDArray[Any]) -> int:
    """How often a value is less than the one before of the same user."""
    return int(np.count_nonzero((values[1:] < values[:-1]) & (users[1:] == users[:-1])))


def _repeated(users: NDArray[np.int32], times: NDArray[np.float64], items: NDArray[np.int32]) -> NDArray[np.int64]:
    """Of sorted events the positions of those whose user, time and item an earlier one has."""
    follows = np.zeros(len(users), dtype=bool)
    np.equal(times[1:], times[:-1], out=follows[1:])
    follows[1:] &= users[1:] == users[:-1]
    tied = follows.copy()
    tied[:-1] |= follows[1:]
    at = np.flatnonzero(tied)
    moment = np.cumsum(~follows[at])
    order = np.lexsort((items[at], moment))
    same = (moment[order][1:] == moment[order][:-1]) & (items[at][order][1:] == items[at][order][:-1])
    return np.sort(at[order[1:][same]])


def _once(events: _Events, which: Repeats) -> NDArray[np.bool_]:
    """A mask that keeps of each user and item the first event or the last."""
    order = np.lexsort((events.item, events.user))
    users, items = events.user[order], events.item[order]
    edge = np.ones(len(order) + 1, dtype=bool)
    edge[1:-1] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
    kept = np.zeros(len(order), dtype=bool)
    kept[order[edge[:-1] if which == "first" else edge[1:]]] = True
    return kept


def _core(
    users: NDArray[np.int32], items: NDArray[np.int32], user_core: int, item_core: int
) -> NDArray[np.bool_] | None:
    """A mask of the events that stay, or None where all do."""
    mine, theirs = np.bincount(users), np.bincount(items)
    kept: NDArray[np.bool_] | None = None
    while True:
        sides = [
            short[codes]
            for counts, core, codes in ((mine, user_core, users), (theirs, item_core, items))
            if (short := (counts > 0) & (counts < core)).any()
        ]
        if not sides:
            return kept
        bad = sides.pop()
        for side in sides:
            bad |= side
        if kept is not None:
            bad &= kept
        mine -= np.bincount(users[bad], minlength=len(mine))
        theirs -= np.bincount(items[bad], minlength=len(theirs))
        np.logical_not(bad, out=bad)
        kept = bad if kept is None else kept & bad


def _look_at_ids(column: str, ids: pl.Series, codes: NDArray[np.int32], source: str, notes: dict[str, Any]) -> None:
    """Warn of ids that are words for 'missing', and of one user or item that owns a large share of the log."""
    counts = np.bincount(codes, minlength=len(ids))
    words = ids.str.to_lowercase().is_in(MISSING).arg_true().to_numpy()
    named = [(str(ids[int(i)]), int(counts[i])) for i in words[np.argsort(-counts[words], kind="stable")]]
    most = int(counts.argmax())
    tell_ids(column, named, len(ids), (str(ids[most]), int(counts[most])), len(codes), source, notes)


def _look_at_order(events: _Events, names: pl.Series, source: str, notes: dict[str, Any]) -> None:
    """Warn where nearly all longer users have their items in the order of the ids: the rows were sorted, and their order is no time."""
    numbers = names.cast(pl.Int64, strict=False)
    lengths = np.bincount(events.user)
    longer = lengths >= 5
    if longer.sum() < 3:
        return
    for kind, key in (("number", numbers), ("text", names)):
        if key.null_count():
            continue
        rank = key.rank("dense").to_numpy()[events.item]
        falls = (rank[1:] < rank[:-1]) & (events.user[1:] == events.user[:-1])
        rising = longer & (np.bincount(events.user[1:][falls], minlength=len(lengths)) == 0)
        if tell_sorted(kind, int(rising.sum()), int(longer.sum()), source, notes):
            return


def tell_twice(count: int, source: str, notes: dict[str, Any]) -> None:
    """Warn of events that repeat another."""
    warn(f"{source}: {count} events repeat the same user, item and time; each is counted once.", notes)


def tell_ids(
    column: str, words: Sequence[tuple[str, int]], ids: int, most: tuple[str, int], events: int, source: str, notes: dict[str, Any]
) -> None:  # fmt: skip
    """Warn of ids that are words for 'missing' (with their events, most first), and of one of so many `ids` that owns a large share."""
    if words:
        told = ", ".join(f"`{name}` ({count:,} events)" for name, count in words)
        warn(f"{source}: {told} as {column} may stand for a missing one. Leave such rows out with `missing`.", notes)
    name, count = most
    if ids >= MANY and count > LARGE * events and name not in dict(words):
        warn(f"{source}: the {column} `{name}` has {count / events:.0%} of all events.", notes)


def tell_backward(count: int, source: str, notes: dict[str, Any]) -> None:
    """Warn of events that stand before the one that they follow in time."""
    warn(
        f"{source}: not in time order ({count} events stand before the one of their user that they follow in time); sorted by time.",
        notes,
    )


def tell_sorted(kind: str, rising: int, longer: int, source: str, notes: dict[str, Any]) -> bool:
    """Warn where of the users with five or more events nearly all have them in the order of the ids; whether it did."""
    if longer < 3 or rising <= 0.9 * longer:
        return False
    warn(
        f"{source}: {rising:,} of {longer:,} users with five or more events have them in the order of the item "
        f"ids (as {kind}), so the rows are probably sorted and their order is not that of time. Name the column of the `time`; "
        "without one nothing that is said of a next item means anything.",
        notes,
    )
    return True


def _log(
    events: _Events, users: pl.Series, names: pl.Series, items: pl.DataFrame | None, source: str,
    notes: dict[str, Any], *, everything: bool,
) -> Log:  # fmt: skip
    """The log of sorted events: users in the order of their first event, items in that of the catalogue."""
    there = np.bincount(events.user, minlength=len(users)) > 0
    if not there.all():
        events.user = (np.cumsum(there, dtype=np.int32) - 1)[events.user]
        users = users.filter(pl.Series(there))
    first = np.full(len(names), len(events), dtype=np.int64)
    first[events.item[::-1]] = np.arange(len(events) - 1, -1, -1)  # of repeated places the last that is written stays
    by_first = np.argsort(first, kind="stable")[: int((first < len(events)).sum())]
    touched = names.gather(by_first)
    catalogue = catalogue_of(touched, items, source, everything=everything, notes=notes)
    code = np.full(len(names), -1, dtype=np.int32)
    code[by_first] = codes_of(touched, catalogue)
    events.item = code[events.item]
    return Log(
        events.user, events.item, catalogue, users.alias("user_id"), source, events.time, events.rating, None, notes
    )
