"""A log out of Spark: read, cleaned, cut to its core and numbered on the cluster; the driver gets arrays."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rectune.data_builders.reader import Reader
from rectune.data_builders.table import shelf_columns, shelf_of

from rectune.log.cleaning import MISSING, Repeats, tell_backward, tell_ids, tell_sorted, tell_twice
from rectune.log.item_table import catalogue_of, codes_of
from rectune.log.log import COLUMNS, Log

ORDER = ["_file", "_block", "_row"]  # where a row stands in its source


def spark(
    *,
    path: list[str] | str | None = None,
    table: str | None = None,
    sql: str | None = None,
    format: str = "parquet",
    user: str = "user",
    item: str = "item",
    time: str | None = None,
    rating: str | None = None,
    where: str | None = None,
    missing: list[str] | None = None,
    items_path: Path | list[Path] | None = None,
    item_id: str | None = None,
    title: str | None = None,
    text: list[str] | None = None,
    user_core: int = 0,
    item_core: int = 0,
    repeats: Repeats = "keep",
    scratch: Path | None = None,
    master: str | None = None,
) -> Log:
    """Read a log by Spark; the same rows in the same order as `table` makes of the same files.

    `path`: files or folders as Spark names them, of `format` ('parquet', 'csv', 'json', 'orc' …; text with a header line), in the order of their paths;
    or `table`, or a query `sql`, whose rows come in no order but that of their times. `where`: a condition in Spark's SQL. `scratch`: a folder that
    driver and executors share, for what lies between two steps; without one it is a temporary folder, which is right for one machine. `master`: where a
    session is made because there is none. The other keys are those of `table`; the items are read by the driver. Times are numbers, dates or
    timestamps; texts that are none are for `to_timestamp` in `sql`. Raises ValueError with one line for what Spark says.
    """
    source = _called(path, table, sql)
    named = {"user": user, "item": item, **({"time": time} if time else {}), **({"rating": rating} if rating else {})}
    shelf = None
    if items_path is not None:
        shelf_id = item_id or item
        items = Reader("utf-8", None, None, True).read(
            items_path, None, "train", "items_path", shelf_columns(shelf_id, title, text, source)
        )
        shelf = shelf_of(items, shelf_id, title)
    with _errors(source), _place(scratch) as place:
        work = _Work(_session(master), place, source)
        rows = work.read(path, table, sql, format, named, where, missing or [])
        return work.log(rows, shelf, user_core, item_core, repeats)


def _called(path: list[str] | str | None, table: str | None, sql: str | None) -> str:
    given = [one for one in (path, table, sql) if one is not None]
    if len(given) != 1:
        raise ValueError("`data`: give one of `path`, `table` and `sql`.")
    if path is None:
        return table or "the query"
    several = path if isinstance(path, list) else [path]
    name = several[0].rstrip("/").rpartition("/")[2]
    return name if len(several) == 1 else f"{name} and {len(several) - 1} more"


def _located(path: str) -> str:
    """A path below the working folder as what it is there: Java keeps the folder that it was started in."""
    here = Path(path)
    return path if "://" in path or here.is_absolute() or not here.exists() else here.resolve().as_uri()


@contextmanager
def _errors(source: str) -> Iterator[None]:
    """What Spark, Java or the network says as one line."""
    for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):  # they print the same with its whole stack
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    except ValueError:
        raise
    except ImportError:
        raise ValueError(
            "`data.call: spark` needs pyspark and Java 17 or later: pip install 'rectune[spark]'."
        ) from None
    except Exception as error:
        said = str(getattr(error, "java_exception", None) or error).strip().split("\n")
        told = next((line for line in reversed(said) if line.startswith("Caused by:")), said[0])
        if "JAVA_GATEWAY_EXITED" in str(error):
            told = "no Java was found; Spark needs Java 17 or later"
        raise ValueError(f"{source}: {' '.join(told.split())[:400]}") from None


@contextmanager
def _place(scratch: Path | None) -> Iterator[Path]:
    """A new folder for what lies between two steps, removed at the end."""
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="rectune-spark-", dir=scratch))
    try:
        yield place.resolve()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _session(master: str | None) -> Any:
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # for functions of Python that Spark runs later
    builder = SparkSession.builder.appName("rectune")
    builder = builder.master(master) if master else builder
    return builder.config("spark.ui.showConsoleProgress", "true").getOrCreate()


class _Work:
    """The steps of one log. What a step leaves is written to `place` and read again: a lost executor costs one step."""

    def __init__(self, session: Any, place: Path, source: str) -> None:
        from pyspark.sql import functions

        self.session, self.place, self.source, self.f = session, place, source, functions
        self.notes: dict[str, Any] = {}
        self.counter = 0

    # --------------------------------------------------------------------------------------------------------- reading

    def read(
        self, path: list[str] | str | None, table: str | None, sql: str | None, format: str, named: dict[str, str],
        where: str | None, missing: list[str],
    ) -> Any:  # fmt: skip
        """The rows that count, each once, with `ORDER`. Raises ValueError for what is no table of events."""
        f = self.f
        if path is not None:
            reader = self.session.read.format(format)
            reader = reader.option("header", "true").option("escape", '"') if format == "csv" else reader
            texts = "spark.sql.sources.partitionColumnTypeInference.enabled"  # a folder user=007 is no number
            before = self.session.conf.get(texts)
            self.session.conf.set(texts, "false")
            try:
                frame = reader.load([_located(one) for one in (path if isinstance(path, list) else [path])])
            finally:
                self.session.conf.set(texts, before)
            place = [f.col("_metadata.file_path"), f.col("_metadata.file_block_start"), f.monotonically_increasing_id()]
        else:
            frame = self.session.table(table) if table is not None else self.session.sql(str(sql))
            place = [f.lit(""), f.lit(0), f.monotonically_increasing_id()]
        for key, column in named.items():
            if column not in frame.columns:
                raise ValueError(
                    f"{self.source}: no column `{column}` (named by `data.{key}`). It has: {', '.join(frame.columns)}."
                )
        kinds = dict(frame.dtypes)
        frame = frame.select("*", *(one.alias(name) for one, name in zip(place, ORDER, strict=True)))
        frame = frame if where is None else frame.where(where)
        columns = [self._id(named[key], kinds[named[key]], key) for key in ("user", "item")]
        columns += [self._number(named[key], kinds[named[key]], key) for key in ("time", "rating") if key in named]
        rows = frame.select(*columns, *ORDER)
        if missing:
            kept = rows.where(~(f.coalesce(f.col("user").isin(missing) | f.col("item").isin(missing), f.lit(False))))
        else:
            kept = rows
        kept = self._kept(kept)
        self._checked(rows, kept, named, frame, missing)
        return self._each_once(kept)

    def _id(self, column: str, kind: str, key: str) -> Any:
        f = self.f
        if kind in ("double", "float") or kind.startswith("decimal"):
            raise ValueError(
                f"{self.source}: `{column}` holds {kind}, and an id is a text or a whole number. Cast it in `data.sql`."
            )
        bare = f.regexp_replace(f.col(f"`{column}`").cast("string"), r"(?U)^\\s+|\\s+$".replace("\\\\", "\\"), "")
        return f.when(bare == "", None).otherwise(bare).alias(key)

    def _number(self, column: str, kind: str, key: str) -> Any:
        f, name = self.f, f"`{column}`"
        if kind == "date":
            number = f.datediff(f.col(name), f.lit("1970-01-01").cast("date")).cast("double") * 86400
        elif kind == "timestamp":
            number = f.expr(f"unix_micros({name})").cast("double") / 1e6
        elif kind == "timestamp_ntz":
            number = (
                f.expr(f"timestampdiff(MICROSECOND, TIMESTAMP_NTZ'1970-01-01 00:00:00', {name})").cast("double") / 1e6
            )
        elif kind == "string":
            number = f.expr(f"try_cast(trim({name}) AS double)")
        else:
            number = f.col(name).cast("double")
        return (number if key == "time" else number.cast("float")).alias(key)

    def _checked(self, rows: Any, kept: Any, named: dict[str, str], frame: Any, missing: list[str]) -> None:
        f = self.f
        counts = [f.count(f.lit(1)).alias("rows")]
        counts += [f.sum(f.col(key).isNull().cast("int")).alias(key) for key in ("user", "item")]
        numbers = [key for key in ("time", "rating") if key in named]
        bad = {
            key: f.col(key).isNull() | f.isnan(key) | f.col(key).isin(float("inf"), float("-inf")) for key in numbers
        }
        counts += [f.sum(bad[key].cast("int")).alias(key) for key in numbers]
        found = kept.agg(*counts).first().asDict()
        if not found["rows"]:
            if missing and rows.head(1):
                raise ValueError(f"{self.source}: every row has one of `data.missing` as user or item.")
            raise ValueError(f"{self.source}: the log is empty.")
        for key in ("user", "item"):
            if found[key]:
                raise ValueError(f"{self.source}: `{key}` is empty in {found[key]} rows.")
        for key in numbers:
            if found[key]:
                column = named[key]
                first = (
                    frame.where(frame[column].isNotNull())
                    .join(kept.where(bad[key]).select(*ORDER), ORDER)
                    .select(column)
                    .first()
                )
                told = (
                    f", e.g. {first[0]!r}. Make it a number or a timestamp in `data.sql`, by to_timestamp(…)"
                    if first
                    else ""
                )
                what = "is not a number" if first else "is empty"
                raise ValueError(f"{self.source}: `{key}` {what} in {found[key]} rows{told}.")
        if missing and (dropped := rows.count() - found["rows"]):
            self.notes["rows_without_user_or_item"] = dropped

    def _each_once(self, rows: Any) -> Any:
        """The same user, item and time is one event: the first row of it."""
        f = self.f
        if "time" not in rows.columns:
            return rows
        others = ["rating"] if "rating" in rows.columns else []
        first = f.min(f.struct(*ORDER, *others)).alias("first")
        single = self._kept(rows.groupBy("user", "item", "time").agg(first).select("user", "item", "time", "first.*"))
        self.notes["duplicate_events"] = twice = rows.count() - single.count()
        if twice:
            tell_twice(twice, self.source, self.notes)
        return single

    # -------------------------------------------------------------------------------------------------------- numbering

    def log(self, rows: Any, shelf: pl.DataFrame | None, user_core: int, item_core: int, repeats: Repeats) -> Log:
        """Ids as numbers, the core, the order; then the catalogue and the arrays, which the driver holds."""
        f = self.f
        timed = "time" in rows.columns
        others = [c for c in ("time", "rating") if c in rows.columns]
        users = self._tell(rows, "user")
        items = self._tell(rows, "item")
        self._tell_order(rows, timed=timed)
        users = self._numbered(users.select("user", "first"), ["first"], "u").select("user", "u")
        items = self._numbered(items.select("item", "first"), ["first"], "i").select("item", "i")
        events = rows.join(users, "user").join(items, "item").select("u", "i", *others, *ORDER)
        when = [*(["time"] if timed else []), *ORDER]
        if repeats != "keep":
            pick = f.min if repeats == "first" else f.max
            rest = [c for c in others if c not in when]
            events = events.groupBy("u", "i").agg(pick(f.struct(*when, *rest)).alias("one")).select("u", "i", "one.*")
        events = self._core(self._kept(events), user_core, item_core)
        if not events.head(1):
            raise ValueError(
                f"{self.source}: no event is left at user_core={user_core}, item_core={item_core}. Lower them."
            )
        present = self._numbered(events.select("u").distinct(), ["u"], "row")
        first = events.groupBy("i").agg(f.min(f.struct("u", *when)).alias("first"))
        touched = self._read(self._kept(first.join(items, "i").sort("first").select("item", "i")))
        catalogue = catalogue_of(touched["item"], shelf, self.source, everything=item_core <= 0, notes=self.notes)
        codes = zip(touched["i"].to_list(), codes_of(touched["item"], catalogue).tolist(), strict=True)
        coded = self.session.createDataFrame(list(codes), "i long, code int")
        final = events.join(present, "u").join(f.broadcast(coded), "i").sort("row", *when)
        final = self._kept(final.select(f.col("row").alias("user"), f.col("code").alias("item"), *others))
        names = self._read(self._kept(present.join(users, "u").sort("row").select("user")))["user"]
        found = self._arrays(final, others)
        return Log(
            found["user"], found["item"], catalogue, names.alias("user_id"), self.source, found.get("time"), found.get("rating"), None,
            self.notes,
        )  # fmt: skip

    def _tell(self, rows: Any, column: str) -> Any:
        """The ids of a column with their events and their first row; warns of what is probably a mistake among them."""
        f = self.f
        ids = self._kept(
            rows.groupBy(column).agg(f.min(f.struct(*ORDER)).alias("first"), f.count(f.lit(1)).alias("events"))
        )
        words = (
            ids.where(f.lower(column).isin(*MISSING)).sort(f.desc("events"), "first").select(column, "events").collect()
        )
        most = ids.sort(f.desc("events"), "first").select(column, "events").first()
        tell_ids(
            column, [(row[0], row[1]) for row in words], ids.count(), (most[0], most[1]), rows.count(), self.source, self.notes
        )  # fmt: skip
        return ids

    def _tell_order(self, rows: Any, *, timed: bool) -> None:
        """Warn of events that stand before the one that they follow in time, and without times of rows that were sorted by item."""
        from pyspark.sql import Window

        f = self.f
        window = Window.partitionBy("user").orderBy(*(["time"] if timed else []), *ORDER)
        if timed:
            place = f.struct(*ORDER)
            back = rows.select((f.lag(place).over(window) > place).alias("back")).where("back").count()
            if back:
                tell_backward(back, self.source, self.notes)
            return
        number = f.expr("try_cast(item AS bigint)")
        whole = not rows.where(number.isNull()).head(1)
        for kind, key in (*((("number", number),) if whole else ()), ("text", f.col("item"))):
            falls = rows.select("user", (f.lag(key).over(window) > key).cast("int").alias("falls"))
            each = falls.groupBy("user").agg(
                f.coalesce(f.sum("falls"), f.lit(0)).alias("falls"), f.count(f.lit(1)).alias("n")
            )
            told = (
                each.where("n >= 5")
                .agg(f.sum((f.col("falls") == 0).cast("int")).alias("rising"), f.count(f.lit(1)).alias("n"))
                .first()
            )
            if tell_sorted(kind, int(told["rising"] or 0), int(told["n"]), self.source, self.notes):
                return

    def _core(self, events: Any, user_core: int, item_core: int) -> Any:
        """Without users and items of too few events, to the fixed point."""
        f = self.f
        while user_core > 1 or item_core > 1:
            few = {
                column: events.groupBy(column).agg(f.count(f.lit(1)).alias("n")).where(f.col("n") < core).select(column)
                for column, core in (("u", user_core), ("i", item_core))
            }
            before = events.count()
            events = self._kept(events.join(few["u"], "u", "left_anti").join(few["i"], "i", "left_anti"))
            if events.count() == before:
                break
        return events

    def _numbered(self, frame: Any, by: list[str], name: str) -> Any:
        """The rows numbered from 0 in an order, without one place that holds them all: each file of the sorted rows counts its own."""
        f = self.f
        held = self._kept(frame.sort(*by)).select(
            "*", f.col("_metadata.file_name").alias("_part"), f.col("_metadata.row_index").alias("_at")
        )
        counts = sorted((row[0], row[1]) for row in held.groupBy("_part").count().collect())
        starts, total = [], 0
        for part, count in counts:
            starts.append((part, total))
            total += count
        if total > np.iinfo(np.int32).max:
            raise ValueError(f"{self.source}: more than {np.iinfo(np.int32).max:,} different ids.")
        offsets = self.session.createDataFrame(starts, "_part string, _start long")
        whole = held.join(f.broadcast(offsets), "_part").withColumn(name, f.col("_start") + f.col("_at"))
        return self._kept(whole.drop("_part", "_at", "_start"))

    # ------------------------------------------------------------------------------------------------------------ files

    def _kept(self, frame: Any) -> Any:
        """A step's rows, written and read again; sorted rows lie in files whose names are in their order."""
        self.counter += 1
        folder = self.place / f"step-{self.counter:03d}"
        where = folder.as_uri()  # a cluster's own file system may be another
        frame.write.parquet(where)
        read = self.session.read.schema(frame.schema).parquet(where)
        read._rectune = folder
        return read

    def _files(self, kept: Any) -> list[Path]:
        return sorted(kept._rectune.glob("part-*.parquet"))

    def _read(self, kept: Any) -> pl.DataFrame:
        return pl.concat([pl.read_parquet(file) for file in self._files(kept)])

    def _arrays(self, kept: Any, others: list[str]) -> dict[str, NDArray[Any]]:
        """The events as arrays, read a file at a time."""
        columns = ["user", "item", *others]
        files = self._files(kept)
        lengths = [pl.scan_parquet(file).select(pl.len()).collect().item() for file in files]
        found = {name: np.empty(sum(lengths), dtype=COLUMNS[name]) for name in columns}
        at = 0
        for file, length in zip(files, lengths, strict=True):
            part = pl.read_parquet(file, columns=columns)
            for name, values in found.items():
                values[at : at + length] = part[name].to_numpy()
            at += length
        return found
